from __future__ import annotations

import re
from itertools import permutations, product
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.items.drawing import Drawing
from kvharness.items.qa import FACTS, PREDICATES, draw_values, qa_items
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kvharness.items.item import Item, Question
    from kvharness.items.qa import Predicate

POOLS = {predicate.pool for predicate in PREDICATES if predicate.pool}


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


@pytest.fixture(scope="module")
def items(encoder: Encoder) -> list[Item]:
    return qa_items(Drawing(encoder=encoder, context=900, seed=1, count=8))


def _asked(items: list[Item]) -> list[tuple[Item, Question]]:
    return [(item, question) for item in items for question in item.questions]


def _fact(encoder: Encoder, item: Item, question: Question) -> str:
    ((start, end),) = question.evidence
    return encoder.text(item.context[start:end])


def test_every_document_has_eight_facts_of_its_own(items: list[Item]) -> None:
    for item in items:
        assert len(item.questions) == len(item.evidence) == FACTS
        assert len({question.reference for question in item.questions}) == FACTS
        assert item.variant == "facts"


def test_the_evidence_is_the_fact(encoder: Encoder, items: list[Item]) -> None:
    for item, question in _asked(items):
        fact = _fact(encoder, item, question)
        told = [_pattern(each, question.reference).fullmatch(fact) for each in PREDICATES]
        (match,) = filter(None, told)
        assert f" {match[1]} " in question.text or f" {match[1]}?" in question.text
        assert item.text.count(fact) == 1


def _pattern(predicate: Predicate, value: str) -> re.Pattern[str]:
    text = re.escape(f" {predicate.lead} {value}{predicate.close}")
    return re.compile(text.replace(re.escape("{place}"), r"([A-Z]\w+)"))


def test_the_reply_opens_with_the_words_of_the_fact(encoder: Encoder, items: list[Item]) -> None:
    for item, question in _asked(items):
        prefix = encoder.text(question.tail).rpartition("\n")[2]
        assert _fact(encoder, item, question).startswith(f" {prefix} {question.reference}")


def test_facts_are_spread_over_the_document(items: list[Item]) -> None:
    for item in items:
        for part, question in enumerate(item.questions):
            depth = question.evidence[0][0] / len(item.context)
            assert part / FACTS - 0.12 <= depth <= (part + 1) / FACTS + 0.12


def test_every_predicate_is_of_its_own() -> None:
    assert len({predicate.lead for predicate in PREDICATES}) == len(PREDICATES) == 18
    assert all("{place}" in each.lead and "{place}" in each.question for each in PREDICATES)
    assert sum(not predicate.pool for predicate in PREDICATES) >= 6


@given(st.integers(0, 2**32))
def test_no_value_is_part_of_another(seed: int) -> None:
    rng = Random(seed)
    values = draw_values(rng, rng.sample(PREDICATES, FACTS))
    assert not any(one.lower() in other.lower() for one, other in permutations(values, 2))


def test_no_value_of_a_pool_is_part_of_one_of_another() -> None:
    for one, other in permutations(POOLS, 2):
        assert not [pair for pair in product(one, other) if pair[0].lower() in pair[1].lower()]


def test_values_of_one_pool_differ() -> None:
    (colour,) = (each for each in PREDICATES if "red" in each.pool)
    values = draw_values(Random(0), [colour] * len(colour.pool))
    assert sorted(values) == sorted(colour.pool)
