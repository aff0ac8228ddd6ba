"""Meeting minutes and reports with a few decisions buried in talk and decoy numbers.

The reference summary lists the decisions. Its places and sums are the slots: teacher-forced
slot accuracy asks whether the facts survived, not whether the prose is good.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kvharness.items.answers import answer_slots
from kvharness.items.compose import Planted, stratified_depths
from kvharness.items.item import Item, Question
from kvharness.items.names import numbers, places

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from kvharness.items.compose import Document
    from kvharness.items.drawing import Drawing
    from kvharness.pretrained.prompt import Encoder

DECISIONS = 3
DECOYS = 4

_ACTS = [
    "repair the harbour wall",
    "rebuild the school roof",
    "extend the tram line",
    "plant a row of limes",
    "restore the old theatre",
    "dig a second well",
    "widen the market street",
    "insulate the town hall",
    "buy a fire engine",
    "drain the lower meadow",
    "renew the street lamps",
    "open a reading room",
    "pave the churchyard path",
    "enlarge the bakery",
    "clean the canal",
    "fence the playing field",
]
_REJECTIONS = (
    "A motion to give {place} {sum} crowns to {act} was withdrawn.",
    "Nobody supported the wish of {place} for {sum} crowns to {act}.",
    "The request of {place} for {sum} crowns to {act} was put off.",
    "An offer of {place} to {act} with {sum} crowns had expired.",
)


class Variant(StrEnum):
    MINUTES = "minutes"
    REPORT = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wording:
    """How one kind of document states its decisions and how it is asked for them."""

    number: str
    verb: str
    question: str


_WORDINGS = {
    Variant.MINUTES: _Wording(
        number="Decision {number}:",
        verb=" gets ",
        question="List the decisions of the meeting in order, with place and sum.",
    ),
    Variant.REPORT: _Wording(
        number="Measure {number}:",
        verb=" receives ",
        question="List the measures of the council in order, with place and sum.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Motion:
    act: str
    place: str
    sum: str


def summarization_items(drawing: Drawing) -> list[Item]:
    """In turn minutes and reports, three decisions and four decoys each."""
    return drawing.each(lambda number: _item(drawing, number))


def _item(drawing: Drawing, number: int) -> Item:
    rng = drawing.rng("summarization", number)
    variant = list(Variant)[number % len(Variant)]
    motions = _motions(rng, DECISIONS + DECOYS)
    decided, decoys = motions[:DECISIONS], motions[DECISIONS:]
    planted = _plant(rng, _WORDINGS[variant], decided, decoys)
    stated = [value for motion in motions for value in (motion.place, motion.sum)]
    document = drawing.document(rng, planted=planted, avoid=stated)
    question = _question(drawing.encoder, _WORDINGS[variant], decided, decoys, document)
    return drawing.item(
        "summarization", number, variant=variant.value, document=document, questions=[question]
    )


def _motions(rng: random.Random, count: int) -> list[_Motion]:
    parts = zip(
        rng.sample(_ACTS, count), places(rng, count), numbers(rng, count, digits=3), strict=True
    )
    return [_Motion(act=act, place=place, sum=cost) for act, place, cost in parts]


def _plant(
    rng: random.Random, wording: _Wording, decided: Sequence[_Motion], decoys: Sequence[_Motion]
) -> list[Planted]:
    """Decisions in order over the whole document, rejected proposals between them."""
    texts = [
        f"{wording.number.format(number=n)} {m.place}{wording.verb}{m.sum} crowns to {m.act}."
        for n, m in enumerate(decided, start=1)
    ]
    rejected = [rng.choice(_REJECTIONS).format(act=m.act, place=m.place, sum=m.sum) for m in decoys]
    depths = [*stratified_depths(rng, len(texts)), *stratified_depths(rng, len(rejected))]
    return [
        Planted(text=text, depth=at) for text, at in zip([*texts, *rejected], depths, strict=True)
    ]


def _question(
    encoder: Encoder,
    wording: _Wording,
    decided: Sequence[_Motion],
    decoys: Sequence[_Motion],
    document: Document,
) -> Question:
    values = [value for motion in decided for value in (motion.place, motion.sum)]
    between = _between(wording, decided)
    answer, slots = answer_slots(encoder, values, between)
    reference = "".join(v + b for v, b in zip(values, between, strict=True))
    return Question(
        text=wording.question,
        question=encoder.question(wording.question),
        tail=encoder.tail(wording.number.format(number=1)),
        answer=answer,
        slots=slots,
        reference=reference,
        references=(reference,),
        facts=tuple(values),
        decoys=tuple(value for motion in decoys for value in (motion.place, motion.sum)),
        evidence=document.spans[: len(decided)],
        max_new_tokens=len(answer),
    )


def _between(wording: _Wording, decided: Sequence[_Motion]) -> list[str]:
    """What the summary says between place and sum, and from one decision to the next."""
    parts: list[str] = []
    for number in range(2, len(decided) + 1):
        parts += [wording.verb, f" crowns.\n{wording.number.format(number=number)} "]
    return [*parts, wording.verb, " crowns."]
