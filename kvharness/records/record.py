"""Records: what one cell did on one item, as it is stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionRecord:
    """One question of an item under one cell.

    Attributes:
        exact: share of the reference answer's facts whose every token is the model's greedy
            choice (teacher forced), so 1.0 means that greedy decoding gives the answer.
        slot_accuracy: share of the facts' tokens that are the greedy choice.
        nll: mean negative log-likelihood of the reference answer's tokens, in nats.
        agreement: share of the reference answer's tokens where the greedy choice equals the
            full cache's.
        evidence_kept: share of the entries of this question's evidence that were kept; None
            where the evidence is unknown.
        generated: generated text; None where nothing was generated.
        text_metrics: metrics on the generated text, by name.
    """

    exact: float
    slot_accuracy: float
    nll: float
    agreement: float
    evidence_kept: float | None = None
    generated: str | None = None
    text_metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Wall time. Prefill is shared by the item's cells; decode is the batch's, divided."""

    prefill: float
    select: float
    decode: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What heads held after the steps of decoding at a constant budget.

    Attributes:
        steps: how often each head was brought back to its budget.
        least, most: entries of any head afterwards, counted in the cache.
    """

    steps: int = 0
    least: int = 0
    most: int = 0

    def and_then(self, least: int, most: int) -> Held:
        """One step more."""
        first = least if not self.steps else min(self.least, least)
        return Held(steps=self.steps + 1, least=first, most=max(self.most, most))

    def beside(self, other: Held) -> Held:
        """The steps of two runs together."""
        if not (self.steps and other.steps):
            return self if self.steps else other
        least, most = min(self.least, other.least), max(self.most, other.most)
        return Held(steps=self.steps + other.steps, least=least, most=most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One cell on one item.

    Attributes:
        key: digest of everything that changes the answer.
        suite, policy, seed, item, variant: what was run; ``policy`` is the slug.
        retention: canonical text; None for the anchors that have none.
        item_digest: content of the item.
        metrics: mean over the questions of each of their numbers.
        score: the suite's headline metric.
        score_name: its name.
        questions: one for each of the item's questions.
        evidence_kept: share of the item's evidence entries kept, over layers and heads.
        realised_retention: kept entries divided by all entries.
        kept: kept entries, a number for each compressed layer.
        tokens: entries per head before compression.
        cache_bytes: measured bytes of the kept keys and values.
        mask_digest: name of the keep mask; one for each question if the question was seen.
        seconds: wall time.
        held: where policies evict while decoding, what heads held after each step; None elsewhere.
    """

    key: str
    suite: str
    policy: str
    retention: str | None
    seed: int
    item: str
    item_digest: str
    variant: str
    score: float
    score_name: str
    metrics: dict[str, float]
    questions: tuple[QuestionRecord, ...]
    evidence_kept: float | None
    realised_retention: float
    kept: tuple[int, ...]
    tokens: int
    cache_bytes: int
    mask_digest: tuple[str, ...]
    seconds: Seconds
    held: Held | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        """Read what `as_dict` gave, after JSON.

        Raises:
            TypeError, KeyError, ValueError: the data is not a record.
        """
        fields = dict(data)
        fields["questions"] = tuple(QuestionRecord(**q) for q in fields["questions"])
        fields["seconds"] = Seconds(**fields["seconds"])
        held = fields.get("held")
        fields["held"] = None if held is None else Held(**held)
        fields["kept"] = tuple(int(count) for count in fields["kept"])
        fields["mask_digest"] = tuple(str(digest) for digest in fields["mask_digest"])
        return cls(**fields)
