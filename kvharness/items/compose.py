"""Documents of an exact length in tokens with sentences planted at known places."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from kvharness.errors import UsageProblem

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from kvharness.items.filler import Filler
    from kvharness.items.item import Span
    from kvharness.pretrained.prompt import Encoder

#: Planted sentences stay clear of the last tokens, which every policy keeps as recents.
_TAIL = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A sentence to hide at a depth from 0 (start) to 1 (end)."""

    text: str
    depth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Token ids with the template head, the text, and a span for each planted sentence."""

    ids: tuple[int, ...]
    text: str
    spans: tuple[Span, ...]


class TooShort(UsageProblem):
    """A context that cannot hold its planted sentences; ``least`` tokens would do."""

    def __init__(self, context: int, *, least: int) -> None:
        super().__init__(
            f"--kv-context {context} is too short for the items of this suite: it needs {least} "
            f"tokens or more with this model's tokenizer"
        )
        self.least = least


def compose(
    encoder: Encoder, filler: Filler, *, context: int, planted: Sequence[Planted]
) -> Document:
    """Filler of exactly the length that is missing, with the planted sentences at their depths.

    Raises:
        TooShort: ``context`` cannot hold what is planted.
    """
    head = encoder.head
    facts = [encoder.ids(f" {each.text}") for each in planted]
    room = context - len(head) - sum(len(ids) for ids in facts)
    if room < 2 * _TAIL:
        raise TooShort(context, least=context - room + 2 * _TAIL)
    sentences = list(_fill(encoder, filler, room))
    places = _boundaries(sentences, [each.depth for each in planted], room)
    ids: list[int] = list(head)
    spans: dict[int, Span] = {}
    for number in range(len(sentences) + 1):
        for which in (w for w, place in enumerate(places) if place == number):
            spans[which] = (len(ids), len(ids) + len(facts[which]))
            ids += facts[which]
        if number < len(sentences):
            ids += sentences[number]
    tokens = tuple(ids)
    text = encoder.text(tokens[len(head) :])
    return Document(ids=tokens, text=text, spans=tuple(spans[w] for w in range(len(planted))))


def _fill(encoder: Encoder, filler: Filler, room: int) -> Iterator[tuple[int, ...]]:
    """Sentences of ``room`` tokens together; the last one is cut and closed with a full stop."""
    left = room
    first = True
    while left:
        text = filler.sentence()
        ids = encoder.ids(text.lstrip() if first else text)
        first = False
        if len(ids) > left:
            ids = (*ids[: left - 1], *encoder.ids(".")[-1:])
        yield ids
        left -= len(ids)


def _boundaries(
    sentences: Sequence[tuple[int, ...]], depths: Sequence[float], room: int
) -> list[int]:
    """For each depth, the number of sentences before it: the sentence break that is nearest.

    The first sentence comes before all of them: every policy keeps the first tokens as sinks.
    """
    breaks = [0, *accumulate(len(ids) for ids in sentences)]
    allowed = [n for n in range(1, len(breaks)) if breaks[n] <= room - _TAIL] or [1]
    return [min(allowed, key=lambda n: abs(breaks[n] - depth * room)) for depth in depths]


def stratified_depths(rng: random.Random, count: int) -> list[float]:
    """One depth in each of ``count`` equal parts of the document, in order."""
    return [(part + rng.random()) / count for part in range(count)]


def plant(texts: Sequence[str], depths: Sequence[float]) -> list[Planted]:
    """Each sentence at its depth."""
    return [Planted(text=text, depth=at) for text, at in zip(texts, depths, strict=True)]
