from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kvharness.claims.paired import paired
from kvharness.inference.method import Method

NUMBERS = st.floats(-100, 100).map(lambda number: round(number, 3))


@given(st.dictionaries(st.text(max_size=3), st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=30))
def test_differences_are_taken_within_each_unit(units: dict[str, tuple[float, float]]) -> None:
    policy = {name: pair[0] for name, pair in reversed(units.items())}
    baseline = {name: pair[1] for name, pair in units.items()}
    sample = paired(policy, baseline, method=Method.T)
    differences = [first - second for first, second in units.values()]
    assert sample.mean == pytest.approx(np.mean(differences), abs=1e-9)
    assert sample.sd == pytest.approx(np.std(differences, ddof=1), abs=1e-9)


def test_only_shared_units_count() -> None:
    assert paired({"a": 3.0, "b": 1.0}, {"a": 1.0, "c": 5.0}).values.tolist() == [2.0]
    with pytest.raises(ValueError, match="finite numbers"):
        paired({"a": 1.0}, {"b": 1.0})


def right_and_wrong(more: int, fewer: int, same: int) -> tuple[dict[str, float], dict[str, float]]:
    pairs = [(1.0, 0.0)] * more + [(0.0, 1.0)] * fewer + [(1.0, 1.0)] * same
    return (
        {str(number): pair[0] for number, pair in enumerate(pairs)},
        {str(number): pair[1] for number, pair in enumerate(pairs)},
    )


def test_right_and_wrong_answers_are_compared_exactly() -> None:
    sample = paired(*right_and_wrong(9, 2, 40))
    assert sample.method is Method.EXACT
    mcnemar = stats.binomtest(9, 11, alternative="greater").pvalue
    assert sample.p_above(0) == pytest.approx(mcnemar)


def test_shares_are_not_right_and_wrong() -> None:
    policy, baseline = right_and_wrong(9, 2, 40)
    assert paired({**policy, "0": 0.5}, baseline).method is Method.T


def test_no_difference_at_all_has_no_width_unless_answers_are_binary() -> None:
    same = {str(number): 0.875 for number in range(30)}
    interval = paired(same, dict(same)).interval()
    assert (interval.low, interval.high) == (0.0, 0.0)
    binary = paired(*right_and_wrong(0, 0, 30)).interval()
    assert binary.low < 0 < binary.high


def test_the_claim_may_choose_the_method() -> None:
    policy, baseline = right_and_wrong(9, 2, 40)
    assert paired(policy, baseline, method=Method.BCA, seed=3).seed == 3
    with pytest.raises(ValueError, match="exact method"):
        paired({"a": 0.5}, {"a": 0.0}, method=Method.EXACT)
