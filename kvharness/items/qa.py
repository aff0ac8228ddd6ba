"""Extractive questions over one-of-a-kind facts woven into prose.

Each document carries eight facts, each with a predicate, a place and a value of its own; every
question is asked from the same compressed cache, and the document is one unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.items.answers import answer_slots
from kvharness.items.compose import plant, stratified_depths
from kvharness.items.item import Item, Question
from kvharness.items.names import numbers, places

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from kvharness.items.compose import Planted
    from kvharness.items.drawing import Drawing
    from kvharness.items.item import Span
    from kvharness.pretrained.prompt import Encoder

FACTS = 8


def words(text: str) -> tuple[str, ...]:
    """A pool of values."""
    return tuple(text.split())


_COLOURS = words("red blue green yellow white black grey purple orange brown")
_ANIMALS = words("goat falcon donkey badger heron tortoise parrot otter spaniel raven")
_METALS = words("copper silver iron brass bronze lead tin steel gold zinc")
_WOODS = words("oak ash elm cedar walnut cherry maple birch pine yew")
_MONTHS = words(
    "January February March April May June July August September October November December"
)
_CROPS = words("barley hops flax wheat oats turnips onions lavender clover beans")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate:
    """A fact is ``lead value close``; its question reuses the words of ``lead``."""

    lead: str
    close: str
    question: str
    pool: tuple[str, ...] = ()


def _fact(lead: str, close: str, question: str, pool: tuple[str, ...] = ()) -> Predicate:
    return Predicate(lead=lead, close=close, question=question, pool=pool)


PREDICATES = (
    _fact(
        "The ferry to {place} carried",
        " passengers.",
        "How many passengers did the ferry to {place} carry?",
    ),
    _fact(
        "The orchard at {place} yielded",
        " baskets of pears.",
        "How many baskets of pears did the orchard at {place} yield?",
    ),
    _fact(
        "The choir of {place} owns",
        " song books.",
        "How many song books does the choir of {place} own?",
    ),
    _fact("The tower at {place} has", " steps.", "How many steps does the tower at {place} have?"),
    _fact(
        "The school in {place} bought", " chairs.", "How many chairs did the school in {place} buy?"
    ),
    _fact(
        "The bridge near {place} is",
        " metres long.",
        "How many metres long is the bridge near {place}?",
    ),
    _fact(
        "The museum of {place} keeps",
        " stuffed birds.",
        "How many stuffed birds does the museum of {place} keep?",
    ),
    _fact(
        "The bakery in {place} sold", " loaves.", "How many loaves did the bakery in {place} sell?"
    ),
    _fact(
        "The well at {place} cost",
        " crowns to dig.",
        "How many crowns did the well at {place} cost to dig?",
    ),
    _fact(
        "The shepherd of {place} counted",
        " lambs.",
        "How many lambs did the shepherd of {place} count?",
    ),
    _fact(
        "The printer in {place} made",
        " copies of the map.",
        "How many copies of the map did the printer in {place} make?",
    ),
    _fact(
        "The quarry at {place} employs",
        " workers.",
        "How many workers does the quarry at {place} employ?",
    ),
    _fact(
        "The gate of the mill at {place} is painted",
        ".",
        "What colour is the gate of the mill at {place} painted?",
        _COLOURS,
    ),
    _fact(
        "The harbour master of {place} keeps a tame",
        ".",
        "Which tame animal does the harbour master of {place} keep?",
        _ANIMALS,
    ),
    _fact(
        "The bell in the chapel of {place} is made of",
        ".",
        "What is the bell in the chapel of {place} made of?",
        _METALS,
    ),
    _fact(
        "The long table in the inn at {place} is built of",
        ".",
        "Which wood is the long table in the inn at {place} built of?",
        _WOODS,
    ),
    _fact(
        "The fair of {place} is always held in",
        ".",
        "In which month is the fair of {place} held?",
        _MONTHS,
    ),
    _fact(
        "The fields around {place} are sown with",
        ".",
        "What are the fields around {place} sown with?",
        _CROPS,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question in words about one value; ``evidence`` numbers the sentences it needs."""

    text: str
    prefix: str
    value: str
    evidence: tuple[int, ...]
    decoys: tuple[str, ...] = ()

    def question(self, encoder: Encoder, spans: Sequence[Span]) -> Question:
        answer, slots = answer_slots(encoder, [self.value], [])
        return Question(
            text=self.text,
            question=encoder.question(self.text),
            tail=encoder.tail(self.prefix),
            answer=answer,
            slots=slots,
            reference=self.value,
            references=(self.value,),
            facts=(self.value,),
            decoys=self.decoys,
            evidence=tuple(spans[number] for number in self.evidence),
            max_new_tokens=len(answer) + 2,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Genre:
    """A suite of documents with several questions; ``tell`` draws what one is about."""

    suite: str
    variant: str
    tell: Callable[[random.Random], tuple[list[Planted], list[Asked]]]

    def items(self, drawing: Drawing) -> list[Item]:
        return drawing.each(lambda number: self._item(drawing, number))

    def _item(self, drawing: Drawing, number: int) -> Item:
        rng = drawing.rng(self.suite, number)
        planted, asked = self.tell(rng)
        avoid = [each.value for each in asked]
        document = drawing.document(rng, planted=planted, avoid=avoid)
        questions = [each.question(drawing.encoder, document.spans) for each in asked]
        return drawing.item(
            self.suite, number, variant=self.variant, document=document, questions=questions
        )


def qa_items(drawing: Drawing) -> list[Item]:
    """Documents with eight facts each."""
    return Genre(suite="qa", variant="facts", tell=_facts).items(drawing)


def _facts(rng: random.Random) -> tuple[list[Planted], list[Asked]]:
    predicates = rng.sample(PREDICATES, FACTS)
    names = places(rng, FACTS)
    values = draw_values(rng, predicates)
    drawn = list(zip(predicates, names, values, strict=True))
    facts = [f"{each.lead.format(place=name)} {value}{each.close}" for each, name, value in drawn]
    asked = [
        Asked(
            text=each.question.format(place=name),
            prefix=each.lead.format(place=name),
            value=value,
            evidence=(number,),
        )
        for number, (each, name, value) in enumerate(drawn)
    ]
    return plant(facts, stratified_depths(rng, FACTS)), asked


def draw_values(rng: random.Random, predicates: list[Predicate]) -> list[str]:
    """A value for each predicate, all different."""
    counts = iter(numbers(rng, len(predicates), digits=3))
    values: list[str] = []
    for predicate in predicates:
        left = [value for value in predicate.pool if value not in values]
        values.append(rng.choice(left) if predicate.pool else next(counts))
    return values
