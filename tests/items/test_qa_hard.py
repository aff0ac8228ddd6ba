from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness.items.drawing import Drawing
from kvharness.items.filler import essays
from kvharness.items.qa_hard import (
    _ATTRIBUTES,
    _JOBS,
    CHAINS,
    PAIRS,
    RECORDS,
    comparison_items,
    records_items,
    two_hop_items,
)
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kvharness.items.item import Item, Question

RECORD = re.compile(
    r" (\w+ \w+) lives in (\w+), works as a (\w+) for (\w+ \w+) and has the staff number (\d{3})\."
)
SEEDS = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


def _evidence(encoder: Encoder, item: Item, question: Question) -> list[str]:
    return [encoder.text(item.context[start:end]) for start, end in question.evidence]


def _prefix(encoder: Encoder, question: Question) -> str:
    return encoder.text(question.tail).rpartition("\n")[2]


def _filler_words() -> set[str]:
    grammar = files("kvharness") / "data" / "grammar"
    frames = (grammar / "frames.txt").read_text("utf-8")
    lexicon = (grammar / "lexicon.json").read_text("utf-8")
    text = f"{essays()} {frames} {lexicon}"
    return set(re.findall(r"[a-z]+", text.lower()))


def test_no_job_is_a_word_of_the_filler() -> None:
    assert not _filler_words() & set(_JOBS)


@settings(max_examples=10)
@given(SEEDS)
def test_records_share_their_attributes(encoder: Encoder, seed: int) -> None:
    (item,) = records_items(Drawing(encoder=encoder, context=900, seed=seed, count=1))
    rows = RECORD.findall(item.text)
    assert len(rows) == len(item.questions) == len(item.evidence) == RECORDS
    for column in zip(*rows, strict=True):
        assert len(set(column)) == RECORDS
    for row, question in zip(sorted(rows), sorted(item.questions, key=_person), strict=True):
        assert row[0] == _person(question)
        assert question.reference in row[1:]


def _person(question: Question) -> str:
    (name,) = re.findall(r"[A-Z]\w+ [A-Z]\w+", question.text)
    return str(name)


def test_a_record_answers_its_question(encoder: Encoder) -> None:
    for item in records_items(Drawing(encoder=encoder, context=900, seed=0, count=4)):
        for question in item.questions:
            (record,) = _evidence(encoder, item, question)
            match = RECORD.fullmatch(record)
            assert match
            assert match[1] == _person(question)
            column = [index for index in range(2, 6) if match[index] == question.reference]
            assert len(column) == 1
            others = {row[column[0] - 1] for row in RECORD.findall(item.text)}
            assert set(question.decoys) == others - {question.reference}


def test_each_attribute_is_asked_for_twice(encoder: Encoder) -> None:
    (item,) = records_items(Drawing(encoder=encoder, context=900, seed=0, count=1))
    leads = Counter(re.sub(r"[A-Z]\w+ [A-Z]\w+", "{person}", q.text) for q in item.questions)
    assert leads == {text: 2 for text, _ in _ATTRIBUTES.values()}


@settings(max_examples=10)
@given(SEEDS)
def test_two_hops_lead_to_the_value(encoder: Encoder, seed: int) -> None:
    (item,) = two_hop_items(Drawing(encoder=encoder, context=900, seed=seed, count=1))
    assert len(item.questions) == CHAINS
    assert len(item.evidence) == 2 * CHAINS
    for question in item.questions:
        first, second = _evidence(encoder, item, question)
        (place,) = re.findall(r" ([A-Z]\w+)[ ?]", question.text)
        person = first.rpartition(" by ")[2].rstrip(".")
        assert f" {place} " in first
        assert second.startswith(f" {person} ")
        assert re.findall(r"\d+", second) == [question.reference]


def test_neither_question_nor_prefix_names_the_entity_between(encoder: Encoder) -> None:
    for item in two_hop_items(Drawing(encoder=encoder, context=900, seed=0, count=8)):
        for question in item.questions:
            first, _ = _evidence(encoder, item, question)
            person = first.rpartition(" by ")[2].rstrip(".")
            assert item.text.count(person) == 2
            assert person not in question.text + _prefix(encoder, question)


def test_the_chains_of_a_document_share_their_predicates(encoder: Encoder) -> None:
    for item in two_hop_items(Drawing(encoder=encoder, context=900, seed=0, count=8)):
        texts = {re.sub(r"\b[A-Z]\w+(?=[ ?])", "", q.text[4:]) for q in item.questions}
        assert len(texts) == 1
        values = {question.reference for question in item.questions}
        assert all({q.reference, *q.decoys} == values for q in item.questions)


def test_the_facts_of_a_chain_come_in_either_order(encoder: Encoder) -> None:
    items = two_hop_items(Drawing(encoder=encoder, context=900, seed=0, count=6))
    asked = [question for item in items for question in item.questions]
    forward = sum(question.evidence[0] < question.evidence[1] for question in asked)
    assert len(asked) / 4 < forward < len(asked) * 3 / 4


@settings(max_examples=10)
@given(SEEDS)
def test_the_larger_number_wins(encoder: Encoder, seed: int) -> None:
    (item,) = comparison_items(Drawing(encoder=encoder, context=900, seed=seed, count=1))
    assert len(item.questions) == PAIRS
    for question in item.questions:
        sizes = {}
        for fact in _evidence(encoder, item, question):
            (name,) = (name for name in (question.reference, *question.decoys) if name in fact)
            (sizes[name],) = map(int, re.findall(r"\d+", fact))
        assert len(sizes) == 2
        assert question.reference == max(sizes, key=lambda name: sizes[name])
        assert all(name in question.text for name in sizes)


def test_the_place_in_the_question_gives_nothing_away(encoder: Encoder) -> None:
    items = comparison_items(Drawing(encoder=encoder, context=700, seed=0, count=25))
    asked = [question for item in items for question in item.questions]
    first = sum(q.text.index(q.reference) < q.text.index(q.decoys[0]) for q in asked)
    early = sum(q.evidence[0] < q.evidence[1] for q in asked)
    assert len(asked) / 3 < first < len(asked) * 2 / 3
    assert len(asked) / 3 < early < len(asked) * 2 / 3


@pytest.mark.parametrize("draw", [records_items, two_hop_items, comparison_items])
def test_the_prefix_leads_to_the_value_alone(encoder: Encoder, draw: object) -> None:
    assert callable(draw)
    for item in draw(Drawing(encoder=encoder, context=900, seed=2, count=4)):
        for question in item.questions:
            prefix = _prefix(encoder, question)
            assert prefix[0].isupper()
            assert question.reference not in prefix
            assert not set(question.decoys) & set(prefix.split())
            assert encoder.text(question.answer) == f" {question.reference}"
