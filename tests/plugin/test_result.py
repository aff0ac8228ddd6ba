from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kvharness.cell import Cell
from kvharness.contract import Contract, Protection, budget_of
from kvharness.plugin.result import CellResult
from tests.runs import RECORD

if TYPE_CHECKING:
    from kvharness.records.record import Record

CONTRACT = Contract(context=400, protection=Protection(sinks=4, recents=16))
QUARTER = Cell(suite="needle", policy="snapkv", retention=Fraction(1, 4), seed=0)
FULL = Cell(suite="needle", policy="full", retention=None, seed=0)
FLOOR = Cell(suite="needle", policy="floor", retention=None, seed=0)
LAYERS, HEADS = 3, 2


def record(kept: tuple[int, ...], *, tokens: int = 400, heads: int = HEADS) -> Record:
    """Of a context whose layers keep so many entries."""
    return replace(
        RECORD,
        score=0.0,
        metrics={"exact": 0.0},
        realised_retention=sum(kept) / (len(kept) * heads * tokens),
        kept=kept,
        tokens=tokens,
    )


def result(*records: Record, cell: Cell = QUARTER, expected: int = 1) -> CellResult:
    return CellResult(cell=cell, contract=CONTRACT, records=records, expected=expected)


@pytest.mark.parametrize(
    ("cell", "kept"), [(QUARTER, (200, 200, 200)), (FULL, (800,) * 3), (FLOOR, (40,) * 3)]
)
def test_an_exact_budget_passes(cell: Cell, kept: tuple[int, ...]) -> None:
    result(record(kept), cell=cell).check()


def test_layers_may_share_their_budget_unevenly() -> None:
    result(record((100, 200, 300))).check()


@pytest.mark.parametrize(
    ("cell", "kept"),
    [
        (QUARTER, (200, 200, 201)),
        (QUARTER, (200, 199, 200)),
        (QUARTER, (0, 0, 0)),
        (FULL, (800, 800, 799)),
        (FLOOR, (40, 41, 40)),
    ],
)
def test_one_entry_too_many_or_too_few_fails(cell: Cell, kept: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match="needle-s0-00: kept "):
        result(record(kept), cell=cell).check()


@given(
    st.integers(1, 60),
    st.integers(1, 16),
    st.integers(1, 200_000),
    st.fractions(min_value=Fraction(1, 100), max_value=1),
    st.integers(-1, 1),
)
def test_a_single_entry_is_noticed_whatever_the_model(
    layers: int, heads: int, tokens: int, retention: Fraction, extra: int
) -> None:
    budget = budget_of(retention, tokens)
    assume(budget > 1)
    kept = (budget * heads + extra, *[budget * heads] * (layers - 1))
    cell = replace(QUARTER, retention=retention)
    made = result(record(kept, tokens=tokens, heads=heads), cell=cell)
    if extra == 0:
        made.check()
    else:
        with pytest.raises(AssertionError):
            made.check()


@given(
    st.lists(st.integers(100, 140), min_size=2, max_size=8),
    st.fractions(min_value=Fraction(1, 20), max_value=1),
)
def test_questions_of_several_lengths_pass_as_their_mean(
    lengths: list[int], retention: Fraction
) -> None:
    """Each pass met its own budget exactly; a record holds the rounded means."""
    budgets = [budget_of(retention, length) for length in lengths]
    mean = sum(budget / length for budget, length in zip(budgets, lengths, strict=True))
    several = replace(
        record((round(HEADS * sum(budgets) / len(budgets)),) * LAYERS),
        realised_retention=mean / len(lengths),
        tokens=round(sum(lengths) / len(lengths)),
        mask_digest=tuple(f"m{number}" for number in range(len(lengths))),
    )
    result(several, cell=replace(QUARTER, retention=retention)).check()


def test_a_missing_item_fails() -> None:
    with pytest.raises(AssertionError, match="1 of 2 items have a record"):
        result(record((200, 200, 200)), expected=2).check()


def test_every_record_is_looked_at() -> None:
    good, bad = record((200, 200, 200)), replace(record((9, 9, 9)), item="the-last")
    with pytest.raises(AssertionError, match="the-last"):
        result(good, good, bad, expected=3).check()
