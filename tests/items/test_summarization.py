from __future__ import annotations

import re
from itertools import permutations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness.items.drawing import Drawing
from kvharness.items.summarization import DECISIONS, DECOYS, Variant, summarization_items
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kvharness.items.item import Item

DECISION = re.compile(r"(?:Decision|Measure) (\d): (\w+) (?:gets|receives) (\d{3}) crowns")


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


@pytest.fixture(scope="module")
def items(encoder: Encoder) -> list[Item]:
    return summarization_items(Drawing(encoder=encoder, context=900, seed=1, count=8))


def test_variants_take_turns(items: list[Item]) -> None:
    assert [item.variant for item in items] == [*Variant] * 4
    assert {len(item.questions) for item in items} == {1}


def test_the_evidence_is_the_decisions(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        (question,) = item.questions
        told = [DECISION.match(encoder.text(item.context[a:b]).strip()) for a, b in item.evidence]
        rows = [match.groups() for match in told if match]
        assert [row[0] for row in rows] == [str(n) for n in range(1, DECISIONS + 1)]
        assert question.facts == tuple(value for row in rows for value in row[1:])


def test_the_summary_repeats_the_decisions(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        (question,) = item.questions
        reply = encoder.text(question.tail).rpartition("\n")[2] + encoder.text(question.answer)
        assert DECISION.findall(reply) == DECISION.findall(item.text)
        assert reply.endswith(f" {question.reference}")
        assert reply.count("\n") == DECISIONS - 1


def test_the_slots_are_places_and_sums(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        (question,) = item.questions
        slots = [encoder.text(question.answer[a:b]).strip() for a, b in question.slots]
        assert slots == list(question.facts)
        assert len(slots) == 2 * DECISIONS


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_decoys_are_rejected_proposals(encoder: Encoder, seed: int) -> None:
    (item,) = summarization_items(Drawing(encoder=encoder, context=700, seed=seed, count=1))
    (question,) = item.questions
    assert len(question.decoys) == 2 * DECOYS
    values = (*question.facts, *question.decoys)
    assert not any(one in other for one, other in permutations(values, 2))
    for value in values:
        assert len(re.findall(rf"\b{value}\b", item.text)) == 1


def test_decisions_are_spread_over_the_document(items: list[Item]) -> None:
    for item in items:
        for part, (start, _) in enumerate(item.questions[0].evidence):
            depth = start / len(item.context)
            assert part / DECISIONS - 0.12 <= depth <= (part + 1) / DECISIONS + 0.12
