"""Questions for larger models: look-alike records, two-hop chains and comparisons.

Every document is filler with sentences that share their predicates, so that wording alone does
not tell which one answers; every question is asked from the same compressed cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from kvharness.items.compose import plant, stratified_depths
from kvharness.items.names import numbers, places
from kvharness.items.qa import Asked, Genre, words

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from kvharness.items.compose import Planted
    from kvharness.items.drawing import Drawing
    from kvharness.items.item import Item

RECORDS = 8
CHAINS = 6
PAIRS = 4

_GIVEN = words("Ada Bruno Clara Emil Frida Gustav Hedda Jana Konrad Petra")
# None of these words occurs in the package's filler, so an answer occurs once in its document.
_JOBS = words(
    "barber botanist cellist chauffeur geologist glazier linguist notary proofreader saddler "
    "typist violinist"
)
_FIRMS = words("Bank Brewery Cannery Foundry Glassworks Laundry Mills Pottery Press Shipyard")

_RECORD = "{person} lives in {town}, works as a {job} for {firm} and has the staff number {number}."
#: The attributes of a record: the question, and the words that stand before the value.
_ATTRIBUTES = {
    "town": ("In which town does {person} live?", "{person} lives in"),
    "job": ("What does {person} work as?", "{person} works as a"),
    "firm": ("Which firm does {person} work for?", "{person} works for"),
    "number": ("Which staff number does {person} have?", "{person} has the staff number"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Relation:
    """``first`` leads from a place to a person, and ``second`` from the person to a number."""

    first: str
    second: str
    question: str
    prefix: str


_RELATIONS = (
    _Relation(
        first="The lighthouse of {place} is kept by {person}.",
        second="{person} owns {value} sheep.",
        question="How many sheep does the keeper of the lighthouse of {place} own?",
        prefix="The keeper of the lighthouse of {place} owns",
    ),
    _Relation(
        first="The choir of {place} is led by {person}.",
        second="{person} wrote {value} letters to the bishop.",
        question="How many letters to the bishop did the leader of the choir of {place} write?",
        prefix="The leader of the choir of {place} wrote",
    ),
    _Relation(
        first="The map of {place} was drawn by {person}.",
        second="{person} sold {value} engravings.",
        question="How many engravings did the one who drew the map of {place} sell?",
        prefix="The one who drew the map of {place} sold",
    ),
    _Relation(
        first="The tower clock of {place} was built by {person}.",
        second="{person} repaired {value} watches.",
        question="How many watches did the builder of the tower clock of {place} repair?",
        prefix="The builder of the tower clock of {place} repaired",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contest:
    """A fact with a number, and the question which of two places has the larger one."""

    fact: str
    question: str
    prefix: str


_CONTESTS = (
    _Contest(
        fact="The tunnel under {place} is {value} metres long.",
        question="Which tunnel is longer, the one under {one} or the one under {other}?",
        prefix="The longer tunnel is the one under",
    ),
    _Contest(
        fact="The waterfall near {place} drops {value} feet.",
        question="Which waterfall is higher, the one near {one} or the one near {other}?",
        prefix="The higher waterfall is the one near",
    ),
    _Contest(
        fact="The chestnut grove at {place} has {value} trees.",
        question="Which chestnut grove has more trees, the one at {one} or the one at {other}?",
        prefix="The chestnut grove with more trees is the one at",
    ),
    _Contest(
        fact="The fishing fleet of {place} landed {value} crates.",
        question="Which fishing fleet landed more crates, the one of {one} or of {other}?",
        prefix="The fishing fleet that landed more crates is the one of",
    ),
    _Contest(
        fact="The theatre in {place} seats {value} guests.",
        question="Which theatre seats more guests, the one in {one} or the one in {other}?",
        prefix="The theatre that seats more guests is the one in",
    ),
    _Contest(
        fact="The post office at {place} handled {value} parcels.",
        question="Which post office handled more parcels, the one at {one} or at {other}?",
        prefix="The post office that handled more parcels is the one at",
    ),
)


def records_items(drawing: Drawing) -> list[Item]:
    """Eight people with the same attributes; of each, one attribute is asked for."""
    return Genre(suite="qa-records", variant="records", tell=_records).items(drawing)


def two_hop_items(drawing: Drawing) -> list[Item]:
    """Six chains of one relation, from a place over a person to a number; all are asked for."""
    return Genre(suite="qa-two-hop", variant="two-hop", tell=_two_hop).items(drawing)


def comparison_items(drawing: Drawing) -> list[Item]:
    """Four pairs of facts, asked which place has the larger number; a guess is right in half."""
    return Genre(suite="qa-comparison", variant="comparison", tell=_comparison).items(drawing)


def _scattered(rng: random.Random, sentences: Sequence[str]) -> list[Planted]:
    """Sentences in random order, so that the order of a chain or pair gives nothing away."""
    depths = stratified_depths(rng, len(sentences))
    rng.shuffle(depths)
    return plant(sentences, depths)


def _records(rng: random.Random) -> tuple[list[Planted], list[Asked]]:
    rows = _rows(rng)
    attributes = list(_ATTRIBUTES) * (RECORDS // len(_ATTRIBUTES))
    rng.shuffle(attributes)
    asked = [_about(rows, which, attribute) for which, attribute in enumerate(attributes)]
    return _scattered(rng, [_RECORD.format_map(row) for row in rows]), asked


def _rows(rng: random.Random) -> list[dict[str, str]]:
    # One draw for people, towns and firms: no two names of a document begin alike.
    names = iter(places(rng, 3 * RECORDS))
    columns = {
        "person": _people(rng, names, RECORDS),
        "town": list(islice(names, RECORDS)),
        "job": rng.sample(_JOBS, RECORDS),
        "firm": [f"{next(names)} {firm}" for firm in rng.sample(_FIRMS, RECORDS)],
        "number": numbers(rng, RECORDS, digits=3),
    }
    return [{key: column[row] for key, column in columns.items()} for row in range(RECORDS)]


def _people(rng: random.Random, surnames: Iterator[str], count: int) -> list[str]:
    return [f"{given} {next(surnames)}" for given in rng.sample(_GIVEN, count)]


def _about(rows: Sequence[dict[str, str]], which: int, attribute: str) -> Asked:
    text, prefix = _ATTRIBUTES[attribute]
    values = [row[attribute] for row in rows]
    return Asked(
        text=text.format_map(rows[which]),
        prefix=prefix.format_map(rows[which]),
        value=values.pop(which),
        evidence=(which,),
        decoys=tuple(values),
    )


def _two_hop(rng: random.Random) -> tuple[list[Planted], list[Asked]]:
    relation = rng.choice(_RELATIONS)
    names = iter(places(rng, 2 * CHAINS))
    people, values = _people(rng, names, CHAINS), numbers(rng, CHAINS, digits=3)
    sentences, asked = [], []
    for number, (person, value) in enumerate(zip(people, values, strict=True)):
        row = {"place": next(names), "person": person, "value": value}
        sentences += [relation.first.format_map(row), relation.second.format_map(row)]
        asked.append(
            Asked(
                text=relation.question.format_map(row),
                prefix=relation.prefix.format_map(row),
                value=value,
                evidence=(2 * number, 2 * number + 1),
                decoys=tuple(other for other in values if other != value),
            )
        )
    return _scattered(rng, sentences), asked


def _comparison(rng: random.Random) -> tuple[list[Planted], list[Asked]]:
    sizes = dict(zip(places(rng, 2 * PAIRS), numbers(rng, 2 * PAIRS, digits=3), strict=True))
    names = list(sizes)
    sentences, asked = [], []
    for number, contest in enumerate(rng.sample(_CONTESTS, PAIRS)):
        one, other = pair = names[2 * number : 2 * number + 2]
        sentences += [contest.fact.format(place=name, value=sizes[name]) for name in pair]
        smaller, larger = sorted(pair, key=lambda name: int(sizes[name]))
        asked.append(
            Asked(
                text=contest.question.format(one=one, other=other),
                prefix=contest.prefix,
                value=larger,
                evidence=(2 * number, 2 * number + 1),
                decoys=(smaller,),
            )
        )
    return _scattered(rng, sentences), asked
