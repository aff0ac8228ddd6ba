from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.statistics.estimate import Interval
from kvharness.statistics.region import Kind, Region, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

MARGINS = st.integers(0, 4)
#: Ends on the same grid as the margins, so that intervals often end at an edge.
INTERVALS = st.lists(st.integers(-6, 6), min_size=2, max_size=2).map(sorted)
HOLDS: dict[Kind, Callable[[float, float], bool]] = {
    Kind.BETTER: lambda difference, margin: difference > margin,
    Kind.NOT_BETTER: lambda difference, margin: difference <= margin,
    Kind.NOT_WORSE: lambda difference, margin: difference >= -margin,
    Kind.EQUIVALENT: lambda difference, margin: abs(difference) <= margin,
}
SWAPPED = {
    Verdict.SUPPORTED: Verdict.REFUTED,
    Verdict.REFUTED: Verdict.SUPPORTED,
    Verdict.INCONCLUSIVE: Verdict.INCONCLUSIVE,
}


def made(low: float, high: float) -> Interval:
    return Interval(mean=(low + high) / 2, low=low, high=high)


@given(st.sampled_from(Kind), MARGINS, INTERVALS)
def test_the_verdict_is_what_holds_all_over_the_interval(
    kind: Kind, margin: int, ends: list[int]
) -> None:
    low, high = ends
    # Halves reach the inside of every gap between two integers.
    points = np.arange(low, high + 0.5, 0.5)
    held = [HOLDS[kind](point, margin) for point in points]
    naive = Verdict.INCONCLUSIVE
    if all(held):
        naive = Verdict.SUPPORTED
    elif not any(held):
        naive = Verdict.REFUTED
    assert Region.of(kind, margin).verdict(made(low, high)) is naive


@given(MARGINS, INTERVALS)
def test_better_and_not_better_are_complements(margin: int, ends: list[int]) -> None:
    interval = made(*ends)
    better = Region.of(Kind.BETTER, margin).verdict(interval)
    assert Region.of(Kind.NOT_BETTER, margin).verdict(interval) is SWAPPED[better]


@given(st.sampled_from(Kind), MARGINS)
def test_an_infinite_interval_says_nothing(kind: Kind, margin: int) -> None:
    interval = Interval(mean=0.0, low=-math.inf, high=math.inf)
    assert Region.of(kind, margin).verdict(interval) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        (Kind.BETTER, Verdict.REFUTED),
        (Kind.NOT_BETTER, Verdict.SUPPORTED),
        (Kind.NOT_WORSE, Verdict.SUPPORTED),
        (Kind.EQUIVALENT, Verdict.SUPPORTED),
    ],
)
def test_identical_differences_at_the_edge_decide(kind: Kind, verdict: Verdict) -> None:
    edge = -0.1 if kind is Kind.NOT_WORSE else 0.1
    assert Region.of(kind, 0.1).verdict(made(edge, edge)) is verdict


@given(MARGINS, INTERVALS)
def test_equivalent_is_not_worse_both_ways(margin: int, ends: list[int]) -> None:
    low, high = ends
    not_worse = Region.of(Kind.NOT_WORSE, margin)
    both = {not_worse.verdict(made(low, high)), not_worse.verdict(made(-high, -low))}
    equivalent = Region.of(Kind.EQUIVALENT, margin).verdict(made(low, high))
    assert (equivalent is Verdict.SUPPORTED) == (both == {Verdict.SUPPORTED})
    assert (equivalent is Verdict.REFUTED) == (Verdict.REFUTED in both)
