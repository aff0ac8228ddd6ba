from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness.items.drawing import Drawing
from kvharness.items.needle import Variant, needle_items
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from kvharness.items.item import Item

NEEDLE = re.compile(r" The (?:first |second )?access code for the ([^.]+) is (\d{6})\.")


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


@pytest.fixture(scope="module")
def items(encoder: Encoder) -> list[Item]:
    return needle_items(Drawing(encoder=encoder, context=900, seed=3, count=12))


def _starts(items: list[Item]) -> list[int]:
    return [item.questions[0].evidence[0][0] for item in items]


def _needles(encoder: Encoder, item: Item) -> list[tuple[str, str]]:
    """The thing and the code of each evidence sentence."""
    found = [NEEDLE.fullmatch(encoder.text(item.context[a:b])) for a, b in item.evidence]
    return [(match[1], match[2]) for match in found if match]


def test_variants_take_turns(items: list[Item]) -> None:
    assert [item.variant for item in items] == [*Variant] * 4


def test_every_item_asks_one_question(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        (question,) = item.questions
        needles = _needles(encoder, item)
        assert len(needles) == len(question.facts) == (2 if item.variant == "multi-value" else 1)
        assert {code for _, code in needles} == set(question.facts)
        assert all(question.text.endswith(f" for the {thing}?") for thing, _ in needles)
        assert question.reference == " and ".join(question.facts)


def test_a_single_needle_is_alone(items: list[Item]) -> None:
    for item in items[::3]:
        assert re.findall(r"\d+", item.text) == list(item.questions[0].facts)
        assert item.questions[0].decoys == ()


def test_multi_key_hides_it_among_two_others(items: list[Item]) -> None:
    for item in items[1::3]:
        (question,) = item.questions
        found = NEEDLE.findall(item.text)
        assert len(dict(found)) == 3
        assert sorted(code for _, code in found) == sorted((*question.facts, *question.decoys))
        assert len(set(question.decoys) - set(question.facts)) == 2


def test_multi_value_asks_in_the_order_of_the_question(items: list[Item]) -> None:
    for item in items[2::3]:
        (question,) = item.questions
        ordinal = dict(re.findall(r"The (first|second) access code .+? is (\d{6})", item.text))
        assert question.facts == (ordinal["first"], ordinal["second"])
        assert re.findall(r"\d{6}", item.text).count(question.facts[0]) == 1


def test_the_answer_prefix_repeats_the_question(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        (question,) = item.questions
        thing = question.text.rpartition(" for the ")[2].rstrip("?")
        assert encoder.text(question.tail).endswith((f"the {thing} is", f"the {thing} are"))
        assert encoder.text(question.answer) == f" {question.reference}"


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_depths_are_stratified_over_a_seed(encoder: Encoder, seed: int) -> None:
    count, context = 8, 1600
    drawn = needle_items(Drawing(encoder=encoder, context=context, seed=seed, count=count))
    for part, start in enumerate(sorted(_starts(drawn))):
        assert part / count - 0.05 <= start / context <= (part + 1) / count + 0.05


def test_depths_are_in_no_order(items: list[Item]) -> None:
    starts = _starts(items)
    assert starts != sorted(starts)
    assert starts != sorted(starts, reverse=True)


def test_more_items_ask_the_same_at_other_depths(encoder: Encoder, items: list[Item]) -> None:
    fewer = needle_items(Drawing(encoder=encoder, context=900, seed=3, count=4))
    for short, long in zip(fewer, items, strict=False):
        assert short.questions[0].text == long.questions[0].text
        assert short.questions[0].answer == long.questions[0].answer
    assert _starts(fewer) != _starts(items)[:4]


def test_needles_hide_in_a_file(encoder: Encoder, tmp_path: Path) -> None:
    haystack = tmp_path / "sea.txt"
    lines = [f"The {word} sea was calm." for word in "abcdefghijklmnopqrstuvwxy"]
    haystack.write_text("\n".join(lines), encoding="utf-8")
    (item,) = needle_items(
        Drawing(encoder=encoder, context=500, seed=0, count=1, haystack=haystack)
    )
    words = re.findall(r"The (\w) sea", item.text)
    order = "".join(words)
    assert order in "abcdefghijklmnopqrstuvwxy" * 3
    assert len(order) > 20
    assert len(item.context) == 500
