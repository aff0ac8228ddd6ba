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
        fields["kept"] = tuple(int(count) for count in fields["kept"])
        fields["mask_digest"] = tuple(str(digest) for digest in fields["mask_digest"])
        return cls(**fields)
