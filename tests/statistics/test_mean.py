from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kvharness.statistics.mean import plus_minus

# -- intervals ------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_the_interval_is_scipys(values: list[float]) -> None:
    made = plus_minus(values)
    assert made.mean == pytest.approx(fmean(values))
    assert made.units == len(values)
    spread = stats.sem(values)
    if spread > 0:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=fmean(values), scale=spread)
        assert made.half == pytest.approx((high - low) / 2)
    else:
        assert made.half == 0


def test_one_item_has_no_interval() -> None:
    made = plus_minus([0.5])
    assert (made.mean, made.half, made.units) == (0.5, 0.0, 1)
    assert str(made) == "0.50"
    assert str(plus_minus([0.5, 0.5])) == "0.50 ±0.00"
