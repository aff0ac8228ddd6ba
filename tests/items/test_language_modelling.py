from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from kvharness.items.compose import TooShort
from kvharness.items.drawing import Drawing
from kvharness.items.language_modelling import language_modelling_items
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from kvharness.items.item import Item

CONTEXT = 600


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


@pytest.fixture(scope="module")
def items(encoder: Encoder) -> list[Item]:
    return language_modelling_items(Drawing(encoder=encoder, context=CONTEXT, seed=3, count=4))


def test_three_quarters_are_the_context_and_one_is_scored(
    encoder: Encoder, items: list[Item]
) -> None:
    for item in items:
        (question,) = item.questions
        assert len(item.context) == CONTEXT
        assert item.context[: len(encoder.head)] == encoder.head
        assert len(question.tail) == 1
        assert len(question.tail) + len(question.answer) == CONTEXT // 3
        assert question.slots == ((0, len(question.answer)),)
        assert question.question == ()


def test_the_text_goes_on_without_a_seam(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        (question,) = item.questions
        whole = encoder.text((*item.context[len(encoder.head) :], *question.tail, *question.answer))
        paragraphs = whole.split("\n\n")
        assert len(paragraphs) > 2
        for paragraph in paragraphs[:-1]:
            assert len(re.findall(r"[.!?](?= |$)", paragraph)) == 6


def test_the_end_comes_back_to_the_beginning(encoder: Encoder, items: list[Item]) -> None:
    """Pairs of words of the last quarter are those of its own text more than of another's."""

    def pairs(text: str) -> Counter[tuple[str, str]]:
        return Counter(pairwise(re.findall(r"\w+", text)))

    def shared(item: Item, other: Item) -> float:
        ends = pairs(encoder.text(item.questions[0].answer))
        there = pairs(other.text)
        return sum(count for pair, count in ends.items() if pair in there) / ends.total()

    for one, other in pairwise(items):
        assert shared(one, one) > 1.3 * shared(one, other)


def test_seeds_and_numbers_draw_texts_of_their_own(encoder: Encoder, items: list[Item]) -> None:
    again = language_modelling_items(Drawing(encoder=encoder, context=CONTEXT, seed=3, count=2))
    assert [item.digest for item in again] == [item.digest for item in items[:2]]
    other = language_modelling_items(Drawing(encoder=encoder, context=CONTEXT, seed=4, count=2))
    assert len({item.digest for item in (*items, *other)}) == 6


def test_a_text_of_the_users(encoder: Encoder, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(" ".join(f"The ship saw {number} whales." for number in range(300)))
    (item,) = language_modelling_items(
        Drawing(encoder=encoder, context=300, seed=0, count=1, haystack=file)
    )
    assert "whales" in item.text
    assert item.variant == "mine.txt"


def test_too_short(encoder: Encoder) -> None:
    with pytest.raises(TooShort):
        language_modelling_items(Drawing(encoder=encoder, context=40, seed=0, count=1))
