from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvharness.items.compose import TooShort
from kvharness.items.drawing import Drawing
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kvharness.items.item import Item


def a_drawing(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, count: int = 1) -> Drawing:
    return Drawing(encoder=Encoder(tokenizer), context=300, seed=seed, count=count)


def test_every_item_has_a_generator_of_its_own(tokenizer: PreTrainedTokenizerFast) -> None:
    names: list[tuple[str, int, int | str]] = [
        ("needle", 0, 0),
        ("needle", 0, 1),
        ("needle", 1, 0),
        ("needle", 0, ""),
        ("qa", 0, 0),
    ]

    def draw() -> list[float]:
        return [a_drawing(tokenizer, seed=s).rng(suite, n).random() for suite, s, n in names]

    assert len(set(draw())) == len(names)
    assert draw() == draw()


def test_the_length_that_would_do_is_that_of_the_longest_item(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    def make(number: int) -> Item:
        raise TooShort(300, least=400 + 100 * (number == 1))

    with pytest.raises(TooShort, match="it needs 500 tokens or more"):
        a_drawing(tokenizer, count=3).each(make)


def test_an_item_has_the_document_and_a_name_of_its_own(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    drawing = a_drawing(tokenizer, seed=4)
    document = drawing.document(drawing.rng("mine", 7), planted=[], avoid=[])
    item = drawing.item("mine", 7, variant="plain", document=document, questions=[])
    assert (item.name, item.suite, item.seed, item.variant) == ("mine-s4-07", "mine", 4, "plain")
    assert len(item.context) == 300
    assert item.text == document.text
