"""How often verdicts are wrong, counted in simulations whose true mean is known."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from kvharness.statistics import bounds
from kvharness.statistics.estimate import Interval, Sample
from kvharness.statistics.multiple import holm
from kvharness.statistics.region import Kind, Region, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]

NOMINAL = 0.05
#: Two points more, as promised for 20 units and more of normal, bounded and binary differences.
TOLERATED = 0.07
#: Margin of every region here, and the mean of everything drawn: an edge of the region.
MARGIN = 0.1
#: The standard error of a share of 5 % is then half a point.
RUNS = 2000
PARTS = 12
DRAWS: dict[str, Draw] = {
    "normal": lambda rng, shape: MARGIN + rng.normal(0, 0.25, shape),
    "uniform": lambda rng, shape: MARGIN + rng.uniform(-0.5, 0.5, shape),
    "beta": lambda rng, shape: MARGIN + rng.beta(2, 5, shape) - 2 / 7,
    "exponential": lambda rng, shape: MARGIN + rng.exponential(0.25, shape) - 0.25,
    "binary": lambda rng, shape: rng.choice([-1.0, 0.0, 1.0], shape, p=[0.1, 0.7, 0.2]),
}
#: Where the data are when the mean just touches the region: at its edge above and its edge below.
SIDES = {
    Kind.BETTER: (1,),
    Kind.NOT_BETTER: (1,),
    Kind.NOT_WORSE: (-1,),
    Kind.EQUIVALENT: (1, -1),
}


def samples(data: str, units: int, runs: int = RUNS) -> list[Sample]:
    drawn = DRAWS[data](np.random.default_rng(units), (runs, units))
    return [Sample.of(values) for values in drawn]


@cache
def intervals(data: str, units: int) -> list[Interval]:
    return [sample.interval(NOMINAL) for sample in samples(data, units)]


def mirrored(interval: Interval) -> Interval:
    return Interval(mean=-interval.mean, low=-interval.high, high=-interval.low)


def moved(interval: Interval, by: float) -> Interval:
    return Interval(mean=interval.mean + by, low=interval.low + by, high=interval.high + by)


def misses(data: str, units: int) -> tuple[float, float]:
    """Shares of intervals that lie above and below the true mean."""
    found = intervals(data, units)
    return share(each.low > MARGIN for each in found), share(each.high < MARGIN for each in found)


def planted(data: str, mean: float) -> Interval:
    """The interval of 5000 units: half-widths from 0.003 to 0.02."""
    rng = np.random.default_rng(7)
    if data == "binary":
        chances = [(0.3 - mean) / 2, 0.7, (0.3 + mean) / 2]
        return Sample.of(rng.choice([-1.0, 0.0, 1.0], 5000, p=chances)).interval(NOMINAL)
    return Sample.of(DRAWS[data](rng, (5000,)) - MARGIN + mean).interval(NOMINAL)


def share(events: Iterable[bool]) -> float:
    return float(np.mean(list(events)))


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("units", [20, 60, 200])
@pytest.mark.parametrize("data", ["normal", "uniform", "beta", "binary"])
def test_at_an_edge_no_verdict_exceeds_its_level(data: str, units: int, kind: Kind) -> None:
    # A step to either side of the edge one of the two is wrong, and as frequent as it is here.
    region = Region.of(kind, MARGIN)
    for side in SIDES[kind]:
        found = intervals(data, units)
        verdicts = [region.verdict(each if side > 0 else mirrored(each)) for each in found]
        assert share(each is Verdict.SUPPORTED for each in verdicts) <= TOLERATED
        assert share(each is Verdict.REFUTED for each in verdicts) <= TOLERATED


@pytest.mark.parametrize("units", [5, 20, 60, 200])
@pytest.mark.parametrize("data", ["normal", "uniform"])
def test_symmetric_data_miss_as_often_as_they_should(data: str, units: int) -> None:
    assert misses(data, units) == pytest.approx((NOMINAL, NOMINAL), abs=0.02)


@pytest.mark.parametrize("units", [5, 20, 60, 200])
def test_binary_data_miss_less_often(units: int) -> None:
    # Measured: 0.6 % at most; the exact method is judged below 20 units too.
    assert max(misses("binary", units)) <= 0.01


@pytest.mark.parametrize(("units", "cost"), [(5, 0.16), (20, 0.11), (60, 0.084), (200, 0.067)])
def test_what_heavy_skew_costs_students_t(units: int, cost: float) -> None:
    # On the side of the short tail the misses are fewer than promised instead.
    above, below = misses("exponential", units)
    assert below == pytest.approx(cost, abs=0.015)
    assert above <= NOMINAL


@pytest.mark.parametrize(("units", "cost"), [(20, 0.088), (60, 0.068)])
def test_what_heavy_skew_costs_the_bootstrap(
    units: int, cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 500 runs of 999 resamples take a second; the standard error is 1.2 points.
    monkeypatch.setattr(bounds, "RESAMPLES", 999)
    drawn = DRAWS["exponential"](np.random.default_rng(units), (500, units))
    # The interval's upper end, without the time that its lower end takes.
    highs = [-bounds.Resampled.of(-values, seed).low(NOMINAL) for seed, values in enumerate(drawn)]
    assert share(high < MARGIN for high in highs) == pytest.approx(cost, abs=0.025)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("data", ["normal", "uniform", "exponential"])
def test_more_units_leave_less_inconclusive(data: str, kind: Kind) -> None:
    region = Region.of(kind, MARGIN)
    unsure = [
        share(
            region.verdict(moved(each, -MARGIN)) is Verdict.INCONCLUSIVE
            for each in intervals(data, units)
        )
        for units in (20, 60, 200)
    ]
    assert all(fewer < more for more, fewer in pairwise(unsure))
    assert unsure[-1] < 0.01


@pytest.mark.parametrize("data", ["normal", "beta", "binary"])
@pytest.mark.parametrize("kind", Kind)
def test_a_mean_planted_beyond_the_margin_flips_the_verdict(kind: Kind, data: str) -> None:
    region = Region.of(kind, MARGIN)
    nearer, further = planted(data, MARGIN - 0.05), planted(data, MARGIN + 0.05)
    inside, outside = (further, nearer) if kind is Kind.BETTER else (nearer, further)
    for side in SIDES[kind]:
        turned = [each if side > 0 else mirrored(each) for each in (inside, outside)]
        verdicts = [region.verdict(each) for each in turned]
        assert verdicts == [Verdict.SUPPORTED, Verdict.REFUTED]


@pytest.mark.parametrize(
    ("data", "units", "tolerated"),
    [
        ("normal", 20, TOLERATED),
        ("normal", 60, TOLERATED),
        ("uniform", 20, TOLERATED),
        ("uniform", 60, TOLERATED),
        # Holm needs tails of 0.4 %, where skew shows more: 11.3, 8.4 and 6.5 % of 20,000 claims
        # with these beta differences (skewness 0.6) were refuted at 20, 60 and 200 units.
        ("beta", 20, 0.13),
        ("beta", 60, 0.1),
        ("beta", 200, 0.08),
        # Skewness 2: 32, 19 and 11.5 %.
        ("exponential", 20, 0.34),
        ("exponential", 60, 0.22),
        ("exponential", 200, 0.14),
    ],
)
def test_twelve_parts_at_the_edge_are_rarely_refuted(
    data: str, units: int, tolerated: float
) -> None:
    drawn = DRAWS[data](np.random.default_rng(units), (RUNS, PARTS, units))
    # Of whole arrays at once: test_estimate.py compares the p-values of samples with these.
    # Below the edge is the side on which these skewed differences fare worst.
    p = stats.ttest_1samp(drawn, MARGIN, axis=-1, alternative="less").pvalue
    assert share(holm(row).min() <= NOMINAL for row in p.tolist()) <= tolerated


def test_twelve_binary_parts_at_the_edge_are_rarely_refuted() -> None:
    found = samples("binary", 20, 250 * PARTS)
    p = np.array([(each.p_below(MARGIN), each.p_above(MARGIN)) for each in found])
    for rows in p.T.reshape(2, -1, PARTS).tolist():
        assert share(holm(row).min() <= NOMINAL for row in rows) <= 0.01


def test_without_holm_twelve_parts_refute_by_chance() -> None:
    refuted = np.array([each.high < MARGIN for each in intervals("normal", 20)])
    parts = refuted[: RUNS // PARTS * PARTS].reshape(-1, PARTS)
    # 166 claims: a standard error of 4 points.
    assert parts.any(axis=1).mean() == pytest.approx(1 - 0.95**PARTS, abs=0.12)


@pytest.mark.parametrize("units", [20, 60, 200])
@pytest.mark.parametrize("data", ["normal", "uniform", "beta", "binary"])
def test_one_part_at_the_edge_keeps_twelve_from_being_supported(data: str, units: int) -> None:
    # The worst case of a conjunction: the other eleven lie inside. Nothing needs correction.
    region = Region.of(Kind.NOT_BETTER, MARGIN)
    found = intervals(data, units)
    at_edge = [region.verdict(each) is Verdict.SUPPORTED for each in found]
    inside = [region.verdict(moved(each, -0.3)) is Verdict.SUPPORTED for each in found]
    claims = range(RUNS - PARTS + 1)
    wrong = share(at_edge[one] and all(inside[one + 1 : one + PARTS]) for one in claims)
    assert wrong <= TOLERATED
    assert units == 20 or wrong == pytest.approx(share(at_edge), abs=0.02)


def test_parts_that_share_their_documents_are_refuted_no_more_often() -> None:
    # The usual case: one document is asked at every retention, so the parts are correlated.
    rng = np.random.default_rng(12)
    documents = rng.normal(MARGIN, 0.2, (RUNS, 1, 20))
    drawn = documents + rng.normal(0, 0.15, (RUNS, PARTS, 20))
    p = stats.ttest_1samp(drawn, MARGIN, axis=-1, alternative="less").pvalue
    assert share(holm(row).min() <= NOMINAL for row in p.tolist()) <= NOMINAL
