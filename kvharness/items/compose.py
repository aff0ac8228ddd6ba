"""Documents of an exact length in tokens with sentences planted at known places."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvharness.item import Span
    from kvharness.items.filler import Filler
    from kvharness.prompt import Encoder

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


def item_rng(suite: str, seed: int, number: int | str = "") -> random.Random:
    """The generator of one item; independent of how many items are drawn."""
    return random.Random(f"kvharness/{suite}/{seed}/{number}")


def compose(
    encoder: Encoder, filler: Filler, *, context: int, planted: Sequence[Planted]
) -> Document:
    """Filler of exactly the length that is missing, with the planted sentences at their depths.

    Raises:
        UsageProblem: ``context`` is too short for what is planted; says what would do.
    """
    head = encoder.head
    facts = [encoder.ids(f" {each.text}") for each in planted]
    room = context - len(head) - sum(len(ids) for ids in facts)
    if room < 2 * _TAIL:
        least = context - room + 2 * _TAIL
        raise UsageProblem(
            f"--kv-context {context} is too short for an item of this suite: it needs {least} "
            f"tokens or more with this model's tokenizer"
        )
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
    """For each depth, the number of sentences before it: the sentence break that is nearest."""
    breaks = [0]
    for ids in sentences:
        breaks.append(breaks[-1] + len(ids))
    allowed = [number for number, at in enumerate(breaks) if at <= room - _TAIL]
    return [min(allowed, key=lambda n: abs(breaks[n] - depth * room)) for depth in depths]


def stratified_depths(rng: random.Random, count: int) -> list[float]:
    """One depth in each of ``count`` equal parts of the document, in order."""
    return [(part + rng.random()) / count for part in range(count)]
