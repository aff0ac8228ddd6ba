"""Needle retrieval: a six-digit number for a named thing, hidden in prose.

After RULER's niah tasks (Hsieh et al. 2024, arXiv 2404.06654): ``single`` hides one needle,
``multi-key`` hides it among needles of other names, ``multi-value`` asks for two numbers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from kvharness.items.answers import answer_slots
from kvharness.items.compose import Planted, stratified_depths
from kvharness.items.item import Item, Question
from kvharness.items.names import numbers, places

if TYPE_CHECKING:
    from kvharness.items.compose import Document
    from kvharness.items.drawing import Drawing
    from kvharness.pretrained.prompt import Encoder

_THINGS = [
    "archive",
    "vault",
    "observatory",
    "signal station",
    "water works",
    "grain store",
    "customs house",
    "power station",
    "lighthouse",
    "weather station",
    "pumping station",
    "record office",
]
_DISTRACTORS = 2


class Variant(StrEnum):
    SINGLE = "single"
    MULTI_KEY = "multi-key"
    MULTI_VALUE = "multi-value"


def needle_items(drawing: Drawing) -> list[Item]:
    """Items in turn single, multi-key and multi-value, at depths stratified over the seed."""
    rng = drawing.rng("needle")
    depths = stratified_depths(rng, drawing.count)
    rng.shuffle(depths)
    return drawing.each(lambda number: _item(drawing, number, depths[number]))


def _item(drawing: Drawing, number: int, depth: float) -> Item:
    rng = drawing.rng("needle", number)
    variant = list(Variant)[number % len(Variant)]
    things = [f"{place} {rng.choice(_THINGS)}" for place in places(rng, 1 + _DISTRACTORS)]
    codes = numbers(rng, 1 + _DISTRACTORS, digits=6)
    facts = _facts(variant, things, codes)
    where = [depth, *(rng.random() for _ in facts[1:])]
    planted = [Planted(text=fact, depth=at) for fact, at in zip(facts, where, strict=True)]
    document = drawing.document(rng, planted=planted, avoid=codes)
    question = _question(drawing.encoder, variant, things[0], codes, document)
    return drawing.item(
        "needle", number, variant=variant.value, document=document, questions=[question]
    )


def _facts(variant: Variant, things: list[str], codes: list[str]) -> list[str]:
    """Sentences to plant; those that answer the question come first."""
    if variant is Variant.MULTI_VALUE:
        return [
            f"The first access code for the {things[0]} is {codes[0]}.",
            f"The second access code for the {things[0]} is {codes[1]}.",
        ]
    shown = things if variant is Variant.MULTI_KEY else things[:1]
    return [
        f"The access code for the {thing} is {code}."
        for thing, code in zip(shown, codes, strict=False)
    ]


def _question(
    encoder: Encoder, variant: Variant, thing: str, codes: list[str], document: Document
) -> Question:
    several = variant is Variant.MULTI_VALUE
    values = codes[:2] if several else codes[:1]
    noun, verb = ("first and second access codes", "are") if several else ("access code", "is")
    answer, slots = answer_slots(encoder, values, [" and "] if several else [])
    decoys = codes[1:] if variant is Variant.MULTI_KEY else []
    return Question(
        text=f"What {verb} the {noun} for the {thing}?",
        question=encoder.question(f"What {verb} the {noun} for the {thing}?"),
        tail=encoder.tail(f"The {noun} for the {thing} {verb}"),
        answer=answer,
        slots=slots,
        reference=" and ".join(values),
        references=(" and ".join(values),),
        facts=tuple(values),
        decoys=tuple(decoys),
        evidence=document.spans[: len(values)],
        max_new_tokens=len(answer) + 2,
    )
