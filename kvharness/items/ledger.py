"""A ledger to write out twice in order: long replies that need what was read, and written, early.

The second copy can come from the context or from the first copy, so a cache that stays at its
budget has to hold one of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.items.answers import answer_slots
from kvharness.items.compose import Planted
from kvharness.items.item import Item, Question
from kvharness.items.names import numbers, places

if TYPE_CHECKING:
    import random

    from kvharness.items.drawing import Drawing
    from kvharness.items.item import Span
    from kvharness.pretrained.prompt import Encoder

#: With three digits each, both copies together take about 300 tokens of the embedded model.
_ENTRIES = 16
_QUESTION = (
    "Write out the harbour ledger in order, each town with its crowns, and then write it out once "
    "more."
)
_OPENING = "The harbour ledger:"
_AGAIN = "The harbour ledger, once more:"
#: Beyond the reference, for replies that go astray.
_SLACK = 8


def ledger_items(drawing: Drawing) -> list[Item]:
    """Prose with one ledger of sixteen invented towns and three-digit sums."""
    return drawing.each(lambda number: _item(drawing, number))


def _item(drawing: Drawing, number: int) -> Item:
    rng = drawing.rng("ledger", number)
    entries = _entries(rng)
    listing = f"{_OPENING} {_listed(entries)}."
    planted = [Planted(text=listing, depth=rng.uniform(0.1, 0.6))]
    told = [word for entry in entries for word in entry]
    document = drawing.document(rng, planted=planted, avoid=told)
    question = _question(drawing.encoder, entries, document.spans)
    return drawing.item("ledger", number, variant="twice", document=document, questions=[question])


def _entries(rng: random.Random) -> list[tuple[str, str]]:
    return list(zip(places(rng, _ENTRIES), numbers(rng, _ENTRIES, digits=3), strict=True))


def _listed(entries: list[tuple[str, str]]) -> str:
    return ", ".join(f"{place} {crowns}" for place, crowns in entries)


def _question(
    encoder: Encoder, entries: list[tuple[str, str]], evidence: tuple[Span, ...]
) -> Question:
    """Each town and each sum of both copies is a fact."""
    facts = [word for entry in entries for word in entry]
    between = [" " if number % 2 == 0 else ", " for number in range(len(facts) - 1)]
    answer, slots = answer_slots(
        encoder, [*facts, *facts], [*between, f".\n\n{_AGAIN} ", *between, "."]
    )
    reference = f"{_listed(entries)}.\n\n{_AGAIN} {_listed(entries)}."
    return Question(
        text=_QUESTION,
        question=encoder.question(_QUESTION),
        tail=encoder.tail(_OPENING),
        answer=answer,
        slots=slots,
        reference=reference,
        references=(reference,),
        facts=(*facts, *facts),
        evidence=evidence,
        max_new_tokens=len(answer) + _SLACK,
    )
