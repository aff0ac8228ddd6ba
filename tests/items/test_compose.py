from __future__ import annotations

import re
from copy import deepcopy
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.errors import UsageProblem
from kvharness.items.compose import Planted, compose, plant, stratified_depths
from kvharness.items.filler import Filler
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

    from kvharness.items.compose import Document

SEEDS = st.integers(0, 2**32)
FACTS = ["The gate is 1234 wide.", "The mill of Balford is painted red.", "Nobody asked for 56."]
DEPTHS = st.floats(0, 1)


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


@pytest.fixture(scope="module")
def base(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """The encoder of a base model: no chat template, and nothing before the context."""
    plain = deepcopy(tokenizer)
    plain.chat_template = None
    return Encoder(plain)


def _document(
    encoder: Encoder, depths: Sequence[float], *, context: int = 600, seed: int = 0
) -> Document:
    planted = plant(FACTS[: len(depths)], depths)
    return compose(encoder, Filler(Random(seed)), context=context, planted=planted)


def _least(encoder: Encoder) -> int:
    with pytest.raises(UsageProblem) as caught:
        _document(encoder, [0.5, 0.5, 0.5], context=10)
    found = re.search(r"it needs (\d+) tokens or more", str(caught.value))
    assert found
    return int(found[1])


@given(st.integers(160, 900), SEEDS, st.lists(DEPTHS, max_size=3))
def test_a_document_is_as_long_as_asked(
    encoder: Encoder, context: int, seed: int, depths: list[float]
) -> None:
    document = _document(encoder, depths, context=context, seed=seed)
    assert len(document.ids) == context
    assert document.ids[: len(encoder.head)] == encoder.head
    assert document.text == encoder.text(document.ids[len(encoder.head) :])


@given(st.integers(160, 900), SEEDS, st.lists(DEPTHS, min_size=1, max_size=3))
def test_spans_hold_the_planted_sentences(
    encoder: Encoder, context: int, seed: int, depths: list[float]
) -> None:
    document = _document(encoder, depths, context=context, seed=seed)
    for fact, (start, end) in zip(FACTS, document.spans, strict=False):
        assert encoder.text(document.ids[start:end]) == f" {fact}"
        before = encoder.text(document.ids[len(encoder.head) : start])
        assert before == "" or before.endswith((".", "!", "?"))
    assert max(end for _, end in document.spans) <= context - 48
    assert min(start for start, _ in document.spans) >= len(encoder.head)


@given(SEEDS, st.permutations([0.0, 0.5, 1.0]))
def test_deeper_sentences_stand_later(encoder: Encoder, seed: int, depths: list[float]) -> None:
    document = _document(encoder, depths, seed=seed)
    by_depth = [span for _, span in sorted(zip(depths, document.spans, strict=True))]
    assert all(one[1] < other[0] for one, other in pairwise(by_depth))


@given(SEEDS, st.lists(DEPTHS, min_size=3, max_size=3))
def test_planted_sentences_never_overlap(encoder: Encoder, seed: int, depths: list[float]) -> None:
    document = _document(encoder, depths, seed=seed)
    assert all(one[1] <= other[0] for one, other in pairwise(sorted(document.spans)))


def test_sentences_of_one_place_stand_as_given(encoder: Encoder) -> None:
    spans = _document(encoder, [0.5, 0.5, 0.5]).spans
    assert all(one[1] == other[0] for one, other in pairwise(spans))


@given(SEEDS, st.floats(0, 0.9))
def test_a_sentence_stands_near_its_depth(encoder: Encoder, seed: int, depth: float) -> None:
    document = _document(encoder, [depth], context=2000, seed=seed)
    assert document.spans[0][0] / 2000 == pytest.approx(depth, abs=0.05)


def test_the_last_sentence_is_closed(encoder: Encoder) -> None:
    texts = [_document(encoder, [], context=context).text for context in range(300, 340)]
    assert all(text.endswith((".", "!", "?")) for text in texts)


def test_too_short_a_context_names_one_that_works(encoder: Encoder) -> None:
    least = _least(encoder)
    assert len(_document(encoder, [0.0, 0.5, 1.0], context=least).ids) == least
    with pytest.raises(UsageProblem, match=f"--kv-context {least - 1} is too short"):
        _document(encoder, [0.0, 0.5, 1.0], context=least - 1)


def test_filler_alone_needs_room_too(encoder: Encoder) -> None:
    with pytest.raises(UsageProblem, match="is too short"):
        _document(encoder, [], context=90)


def test_sentences_are_set_apart(encoder: Encoder) -> None:
    assert not re.search(r"[.!?][^\s]", _document(encoder, [0.0]).text)


def test_sentences_stay_clear_of_the_sinks_of_a_base_model(base: Encoder) -> None:
    assert _document(base, [0.0]).spans[0][0] >= 4


def test_a_base_model_begins_with_the_filler(base: Encoder) -> None:
    document = _document(base, [0.5])
    assert not document.text[0].isspace()
    assert document.text == base.text(document.ids)
    assert len(document.ids) == 600


@given(SEEDS, st.integers(1, 40))
def test_depths_are_stratified(seed: int, count: int) -> None:
    depths = stratified_depths(Random(seed), count)
    assert [int(depth * count + 1e-9) for depth in depths] == list(range(count))


def test_plant_pairs_each_text_with_its_depth() -> None:
    assert plant(["a", "b"], [0.1, 0.9]) == [
        Planted(text="a", depth=0.1),
        Planted(text="b", depth=0.9),
    ]
    with pytest.raises(ValueError, match="shorter"):
        plant(["a", "b"], [0.1])
