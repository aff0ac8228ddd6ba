from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kvharness.report.difference import Difference, Mean, Relation
from kvharness.statistics.estimate import Sample


def difference(values: list[float]) -> Difference:
    found = Difference.of(
        {str(n): v for n, v in enumerate(values)}, dict.fromkeys(map(str, range(99)), 0.0)
    )
    assert found is not None
    return found


@given(st.lists(st.floats(-1, 1), min_size=20, max_size=40, unique=True))
def test_a_paired_t_test(values: list[float]) -> None:
    found = difference(values)
    test = stats.ttest_1samp(values, 0)
    assert found.units == len(values)
    assert found.mean == pytest.approx(fmean(values))
    assert found.p == pytest.approx(test.pvalue, abs=1e-9)
    interval = found.interval
    assert interval is not None
    low, high = test.confidence_interval(0.9)
    assert (interval.low, interval.high) == pytest.approx((low, high))


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60))
def test_binary_differences_as_claims_are_judged(values: list[float]) -> None:
    sample = Sample.of(values)
    smaller = min(sample.p_above(0), sample.p_below(0))
    assert difference(values).p == pytest.approx(min(1, 2 * smaller))


def test_only_items_that_both_answered() -> None:
    found = Difference.of({"a": 1.0, "b": 0.25, "c": 1.0}, {"b": 0.0, "c": 0.25, "d": 0.0})
    assert found is not None
    assert (found.units, found.mean) == (2, 0.5)
    assert Difference.of({"a": 1.0}, {"b": 1.0}) is None


def test_few_items_decide_nothing() -> None:
    assert difference([0.5] * 19).p == 1
    assert difference([0.5]).interval is None
    assert difference([0.5] * 20).p == 0


def test_relations() -> None:
    better, worse, same = (difference([each] * 20) for each in (0.5, -0.5, 0.0))
    assert better.relation(better.p) is Relation.BETTER
    assert worse.relation(worse.p) is Relation.WORSE
    assert same.relation(same.p) is same.relation(0.0) is Relation.UNDECIDED
    assert better.relation(0.06) is Relation.UNDECIDED


def test_means() -> None:
    assert Mean.of([]) is None
    one, two = Mean.of([0.5]), Mean.of([0.25, 0.75])
    assert one is not None
    assert one.interval is None
    assert two is not None
    assert (two.mean, two.units) == (0.5, 2)
    # Binary values are shares here, not pairs: Student's t as in the tables of a run.
    some = Mean.of([0.0, 1.0, 1.0, 1.0])
    assert some is not None
    assert some.interval is not None
    half = stats.sem([0, 1, 1, 1]) * stats.t.ppf(0.975, 3)
    assert some.interval.high - some.mean == pytest.approx(half)
