from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.budgets import exact_budgets


@given(data=st.data())
def test_budgets_add_up_within_their_limits(data: st.DataObject) -> None:
    heads = data.draw(st.integers(1, 12))
    low = data.draw(st.integers(0, 20))
    high = low + data.draw(st.integers(0, 50))
    total = data.draw(st.integers(low * heads, high * heads))
    wanted = data.draw(st.lists(st.floats(low, 1e4), min_size=heads, max_size=heads))
    found = exact_budgets(torch.tensor([wanted]), total=total, low=low, high=high)
    assert found.shape == (1, heads)
    assert found.dtype == torch.int64
    assert int(found.sum()) == total
    assert low <= int(found.min())
    assert int(found.max()) <= high


@given(data=st.data())
def test_budgets_keep_the_order_of_what_is_wanted(data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.floats(0, 100), min_size=2, max_size=8))
    total = data.draw(st.integers(0, 40 * len(wanted)))
    found = exact_budgets(torch.tensor(wanted), total=total, low=0, high=40).tolist()
    for one, mine in zip(wanted, found, strict=True):
        for other, theirs in zip(wanted, found, strict=True):
            if one > other + 1e-3:
                assert mine >= theirs - 1


def test_whole_budgets_stay_as_they_are() -> None:
    wanted = torch.tensor([[7.0, 3.0], [12.0, 2.0]])
    assert torch.equal(exact_budgets(wanted, total=24, low=0, high=20), wanted.long())


def test_what_one_head_cannot_hold_goes_to_the_others_in_proportion() -> None:
    wanted = torch.tensor([[90.0, 20.0, 10.0]])
    assert exact_budgets(wanted, total=90, low=0, high=60).tolist() == [[60, 20, 10]]


def test_remainders_go_to_the_largest_and_then_to_the_earlier() -> None:
    assert exact_budgets(torch.ones(3), total=7, low=0, high=9).tolist() == [3, 2, 2]


def test_impossible_totals_are_refused() -> None:
    with pytest.raises(ValueError, match=r"9 entries for 2 heads: expected from 2 to 8"):
        exact_budgets(torch.ones(2), total=9, low=1, high=4)
