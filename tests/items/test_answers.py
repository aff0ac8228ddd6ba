from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.items.answers import answer_slots
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

    from kvharness.items.item import Span

VALUES = st.lists(
    st.text("abcdeXYZ0123456789 ", min_size=1).map(str.strip).filter(bool), min_size=1
)
BETWEEN = st.sampled_from([" and ", ", ", " gets ", " crowns.\nDecision 2: ", "-", " ("])


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


def _read(encoder: Encoder, ids: tuple[int, ...], slots: Sequence[Span]) -> list[str]:
    return [encoder.text(ids[start:end]).strip() for start, end in slots]


def test_one_value_is_one_slot(encoder: Encoder) -> None:
    ids, slots = answer_slots(encoder, ["481516"], [])
    assert ids == encoder.ids(" 481516")
    assert slots == ((0, len(ids)),)


def test_what_stands_between_is_in_no_slot(encoder: Encoder) -> None:
    ids, slots = answer_slots(encoder, ["12", "34"], [" and "])
    assert encoder.text(ids) == " 12 and 34"
    assert _read(encoder, ids, slots) == ["12", "34"]
    outside = ids[slots[0][1] : slots[1][0]]
    assert outside == encoder.ids(" and")


@pytest.mark.parametrize("values", [["Balford"], ["Balford", "481"]])
def test_a_last_entry_closes_the_answer(encoder: Encoder, values: list[str]) -> None:
    between = [" gets ", " crowns."][-len(values) :]
    ids, slots = answer_slots(encoder, values, between)
    assert encoder.text(ids).endswith(" crowns.")
    assert _read(encoder, ids, slots) == values


@given(data=st.data(), values=VALUES, closed=st.booleans())
def test_slots_decode_to_the_values(
    encoder: Encoder, data: st.DataObject, values: list[str], *, closed: bool
) -> None:
    size = len(values) - (not closed)
    between = data.draw(st.lists(BETWEEN, min_size=size, max_size=size))
    ids, slots = answer_slots(encoder, values, between)
    assert _read(encoder, ids, slots) == values
    assert encoder.text(ids) == " " + "".join(
        value + (between[number] if number < size else "") for number, value in enumerate(values)
    )
    assert all(before[1] <= after[0] for before, after in pairwise(slots))
