from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvharness.items.compose import TooShort
from kvharness.items.drawing import Drawing
from kvharness.items.ledger import ledger_items
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kvharness.items.item import Item

CONTEXT = 700


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


@pytest.fixture(scope="module")
def items(encoder: Encoder) -> list[Item]:
    return ledger_items(Drawing(encoder=encoder, context=CONTEXT, seed=3, count=4))


def test_the_ledger_stands_in_the_text_once(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        (question,) = item.questions
        ((start, end),) = question.evidence
        once = question.reference.partition(".")[0]
        assert encoder.text(item.context[start:end]) == f" The harbour ledger: {once}."
        for fact in question.facts:
            assert item.text.count(fact) == 1


def test_the_reply_is_the_ledger_twice(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        (question,) = item.questions
        reply = encoder.text(question.answer)
        assert reply == f" {question.reference}"
        first, again = reply.split("\n\nThe harbour ledger, once more:")
        assert first == again
        assert first.count(",") == 15
        assert question.facts[:32] == question.facts[32:]


def test_the_reply_is_long_and_its_facts_are_most_of_it(items: list[Item]) -> None:
    for item in items:
        (question,) = item.questions
        assert len(question.answer) > 200
        assert len(question.slots) == 64
        scored = sum(end - start for start, end in question.slots)
        assert 0.75 < scored / len(question.answer) < 1
        assert question.max_new_tokens > len(question.answer)


def test_each_slot_holds_its_fact(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        (question,) = item.questions
        texts = [encoder.text(question.answer[start:end]) for start, end in question.slots]
        assert [text.strip() for text in texts] == list(question.facts)


def test_ledgers_differ(items: list[Item]) -> None:
    assert len({question.reference for item in items for question in item.questions}) == 4


def test_a_context_that_cannot_hold_it_is_refused(encoder: Encoder) -> None:
    with pytest.raises(TooShort, match="--kv-context 200 is too short"):
        ledger_items(Drawing(encoder=encoder, context=200, seed=0, count=1))
