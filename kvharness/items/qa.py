"""Extractive questions over one-of-a-kind facts woven into prose.

Each document carries eight facts, each with a predicate, a place and a value of its own; every
question is asked from the same compressed cache, and the document is one unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.item import Item, Question
from kvharness.items.compose import Planted, compose, item_rng, stratified_depths
from kvharness.items.filler import Filler
from kvharness.items.names import numbers, places
from kvharness.items.wording import answer_slots

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from kvharness.item import Span
    from kvharness.prompt import Encoder

FACTS = 8

_COLOURS = ["red", "blue", "green", "yellow", "white", "black", "grey", "purple", "orange", "brown"]
_ANIMALS = [
    "goat",
    "falcon",
    "donkey",
    "badger",
    "heron",
    "tortoise",
    "parrot",
    "otter",
    "spaniel",
    "raven",
]
_METALS = ["copper", "silver", "iron", "brass", "bronze", "lead", "tin", "steel", "gold", "zinc"]
_WOODS = ["oak", "ash", "elm", "cedar", "walnut", "cherry", "maple", "birch", "pine", "yew"]
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_CROPS = [
    "barley",
    "hops",
    "flax",
    "wheat",
    "oats",
    "turnips",
    "onions",
    "lavender",
    "clover",
    "beans",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate:
    """A fact is ``lead value close``; its question reuses the words of ``lead``."""

    lead: str
    close: str
    question: str
    pool: tuple[str, ...] = ()


def _count(lead: str, close: str, question: str) -> Predicate:
    return Predicate(lead=lead, close=close, question=question)


def _kind(lead: str, close: str, question: str, pool: list[str]) -> Predicate:
    return Predicate(lead=lead, close=close, question=question, pool=tuple(pool))


PREDICATES = (
    _count(
        "The ferry to {place} carried",
        " passengers.",
        "How many passengers did the ferry to {place} carry?",
    ),
    _count(
        "The orchard at {place} yielded",
        " baskets of pears.",
        "How many baskets of pears did the orchard at {place} yield?",
    ),
    _count(
        "The choir of {place} owns",
        " song books.",
        "How many song books does the choir of {place} own?",
    ),
    _count(
        "The tower at {place} has",
        " steps.",
        "How many steps does the tower at {place} have?",
    ),
    _count(
        "The school in {place} bought",
        " chairs.",
        "How many chairs did the school in {place} buy?",
    ),
    _count(
        "The bridge near {place} is",
        " metres long.",
        "How many metres long is the bridge near {place}?",
    ),
    _count(
        "The museum of {place} keeps",
        " stuffed birds.",
        "How many stuffed birds does the museum of {place} keep?",
    ),
    _count(
        "The bakery in {place} sold",
        " loaves.",
        "How many loaves did the bakery in {place} sell?",
    ),
    _count(
        "The well at {place} cost",
        " crowns to dig.",
        "How many crowns did the well at {place} cost to dig?",
    ),
    _count(
        "The shepherd of {place} counted",
        " lambs.",
        "How many lambs did the shepherd of {place} count?",
    ),
    _count(
        "The printer in {place} made",
        " copies of the map.",
        "How many copies of the map did the printer in {place} make?",
    ),
    _count(
        "The quarry at {place} employs",
        " workers.",
        "How many workers does the quarry at {place} employ?",
    ),
    _kind(
        "The gate of the mill at {place} is painted",
        ".",
        "What colour is the gate of the mill at {place} painted?",
        _COLOURS,
    ),
    _kind(
        "The harbour master of {place} keeps a tame",
        ".",
        "Which tame animal does the harbour master of {place} keep?",
        _ANIMALS,
    ),
    _kind(
        "The bell in the chapel of {place} is made of",
        ".",
        "What is the bell in the chapel of {place} made of?",
        _METALS,
    ),
    _kind(
        "The long table in the inn at {place} is built of",
        ".",
        "Which wood is the long table in the inn at {place} built of?",
        _WOODS,
    ),
    _kind(
        "The fair of {place} is always held in",
        ".",
        "In which month is the fair of {place} held?",
        _MONTHS,
    ),
    _kind(
        "The fields around {place} are sown with",
        ".",
        "What are the fields around {place} sown with?",
        _CROPS,
    ),
)


def qa_items(
    encoder: Encoder, *, context: int, seed: int, count: int, haystack: Path | None = None
) -> list[Item]:
    """Documents with eight facts each."""
    return [
        _item(encoder, context=context, seed=seed, number=number, haystack=haystack)
        for number in range(count)
    ]


def _item(encoder: Encoder, *, context: int, seed: int, number: int, haystack: Path | None) -> Item:
    rng = item_rng("qa", seed, number)
    predicates = rng.sample(PREDICATES, FACTS)
    names = places(rng, FACTS)
    values = draw_values(rng, predicates)
    facts = [
        f"{predicate.lead.format(place=name)} {value}{predicate.close}"
        for predicate, name, value in zip(predicates, names, values, strict=True)
    ]
    depths = stratified_depths(rng, FACTS)
    planted = [Planted(text=fact, depth=at) for fact, at in zip(facts, depths, strict=True)]
    filler = Filler(rng, haystack=haystack)
    document = compose(encoder, filler, context=context, planted=planted)
    questions = tuple(
        _question(encoder, predicate, name, value, span)
        for predicate, name, value, span in zip(
            predicates, names, values, document.spans, strict=True
        )
    )
    return Item(
        suite="qa",
        name=f"qa-s{seed}-{number:02d}",
        variant="facts",
        seed=seed,
        context=document.ids,
        text=document.text,
        questions=questions,
    )


def draw_values(rng: random.Random, predicates: list[Predicate]) -> list[str]:
    """A value for each predicate, all different."""
    counts = iter(numbers(rng, len(predicates), digits=3))
    values: list[str] = []
    for predicate in predicates:
        left = [value for value in predicate.pool if value not in values]
        values.append(rng.choice(left) if predicate.pool else next(counts))
    return values


def _question(
    encoder: Encoder, predicate: Predicate, place: str, value: str, span: Span
) -> Question:
    text = predicate.question.format(place=place)
    answer, slots = answer_slots(encoder, [value], [])
    return Question(
        text=text,
        question=encoder.question(text),
        tail=encoder.tail(predicate.lead.format(place=place)),
        answer=answer,
        slots=slots,
        reference=value,
        references=(value,),
        facts=(value,),
        evidence=(span,),
        max_new_tokens=len(answer) + 5,
    )
