from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import special, stats

from kvharness.statistics import bounds
from kvharness.statistics.estimate import LEAST_UNITS, Interval, Sample
from kvharness.statistics.method import Method
from kvharness.statistics.region import Kind, Region, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

#: Thousandths: spreads that are either none or far from rounding errors.
VALUES = st.lists(
    st.integers(-3000, 3000).map(lambda number: number / 1000), min_size=2, max_size=30
)
SIGNS = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60)
ALPHAS = st.floats(0.001, 0.499)
EDGES = st.integers(-1500, 1500).map(lambda number: number / 1000)
ROUNDING = 1e-12
#: Each method with values it takes.
SAMPLES = st.one_of(
    VALUES.map(lambda values: Sample.of(values, method=Method.T)),
    VALUES.map(lambda values: Sample.of(values, method=Method.BCA)),
    SIGNS.map(lambda values: Sample.of(values, method=Method.EXACT)),
)


@pytest.fixture(autouse=True, scope="module")
def _few_resamples() -> Iterator[None]:
    # 9999 take 40 ms for an interval and there are hundreds of them here.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "RESAMPLES", 499)
        yield


def negated(sample: Sample) -> Sample:
    return Sample.of(-sample.values, method=sample.method, seed=sample.seed)


def pairs(more: int, fewer: int, units: int) -> Sample:
    values = np.repeat([1.0, -1.0, 0.0], [more, fewer, units - more - fewer])
    return Sample.of(values)


def clopper_pearson(count: int, units: int, tail: float) -> tuple[float, float]:
    """Quantiles of beta distributions."""
    low = stats.beta.ppf(tail, count, units - count + 1) if count else 0.0
    high = stats.beta.isf(tail, count + 1, units - count) if count < units else 1.0
    return float(low), float(high)


def mcnemar(more: int, fewer: int) -> float:
    """Sum of binomial probabilities: ``more`` or more heads of all discordant pairs."""
    discordant = more + fewer
    return math.fsum(math.comb(discordant, n) / 2**discordant for n in range(more, discordant + 1))


@given(SAMPLES, ALPHAS)
def test_the_interval_holds_the_mean(sample: Sample, alpha: float) -> None:
    interval = sample.interval(alpha)
    assert interval.mean == sample.mean
    assert interval.low <= sample.mean <= interval.high


@given(SAMPLES, st.lists(ALPHAS, min_size=2, max_size=2, unique=True).map(sorted))
def test_a_larger_alpha_lies_within(sample: Sample, alphas: list[float]) -> None:
    outer, inner = (sample.interval(alpha) for alpha in alphas)
    # Interpolating between two equal means of resamples leaves a rounding error.
    assert outer.low <= inner.low + ROUNDING
    assert inner.high <= outer.high + ROUNDING


@settings(max_examples=50)
@given(SAMPLES, ALPHAS, EDGES)
def test_negated_differences_have_the_negated_answer(
    sample: Sample, alpha: float, edge: float
) -> None:
    interval, mirrored = sample.interval(alpha), negated(sample).interval(alpha)
    assert (interval.low, interval.high) == (-mirrored.high, -mirrored.low)
    assert sample.p_above(edge) == negated(sample).p_below(-edge)


@settings(max_examples=50)
@given(SAMPLES, ALPHAS, EDGES)
def test_p_is_the_level_at_which_the_interval_leaves_the_edge(
    sample: Sample, alpha: float, edge: float
) -> None:
    if sample.method is Method.BCA:
        edge += 0.000123  # the mean of no resample, so that rounding does not decide
    above, below = sample.p_above(edge), sample.p_below(edge)
    assume(abs(above - alpha) > 1e-6 and abs(below - alpha) > 1e-6)
    interval = sample.interval(alpha)
    assert (interval.low > edge) == (above < alpha)
    assert (interval.high < edge) == (below < alpha)


@settings(max_examples=50)
@given(SAMPLES, st.lists(EDGES, min_size=2, max_size=2).map(sorted))
def test_a_further_edge_is_harder_to_exceed(sample: Sample, edges: list[float]) -> None:
    near, far = edges
    assert 0 <= sample.p_above(near) <= sample.p_above(far) <= 1


@pytest.mark.parametrize("method", [Method.T, Method.BCA])
@pytest.mark.parametrize("units", [2, 3, 7, 20])
@pytest.mark.parametrize("value", [0.0, 0.1, -2.0])
def test_equal_values_have_no_width(method: Method, units: int, value: float) -> None:
    sample = Sample.of([value] * units, method=method)
    assert sample.interval() == Interval(mean=value, low=value, high=value)
    assert sample.sd == 0.0
    assert [sample.p_above(value - 0.01), sample.p_below(value + 0.01)] == [0.0, 0.0]
    assert [sample.p_above(value), sample.p_below(value)] == [1.0, 1.0]


@pytest.mark.parametrize("method", [Method.T, Method.BCA])
def test_one_unit_says_nothing(method: Method) -> None:
    sample = Sample.of([0.3], method=method)
    assert sample.interval() == Interval(mean=0.3, low=-math.inf, high=math.inf)
    assert (sample.p_above(-9.0), sample.p_below(9.0), sample.sd) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.95, math.nan])
def test_a_level_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must lie between"):
        Sample.of([0.1, 0.2]).interval(alpha)


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ([1, 0, -1, 0], Method.EXACT),
        ([0.0, 0.0], Method.EXACT),
        ([1.0, 0.5], Method.T),
        ([2.0, 0.0], Method.T),
    ],
)
def test_the_method_follows_the_values(values: list[float], method: Method) -> None:
    assert Sample.of(values).method is method


@pytest.mark.parametrize("method", [Method.T, Method.BCA])
def test_a_method_that_is_asked_for_is_used(method: Method) -> None:
    assert Sample.of([1, 0, -1], method=method).method is method


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf], [[0.1, 0.2]]])
def test_what_is_no_sample_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        Sample.of(values)


def test_the_exact_method_takes_binary_pairs_only() -> None:
    with pytest.raises(ValueError, match="differences of -1, 0 and 1"):
        Sample.of([1, 0, 0.5], method=Method.EXACT)


@given(VALUES)
def test_mean_and_sd(values: list[float]) -> None:
    sample = Sample.of(values, method=Method.T)
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    assert sample.mean == pytest.approx(mean, abs=1e-12)
    assert sample.sd == pytest.approx(math.sqrt(squares / (len(values) - 1)), abs=1e-12)


def test_few_units_are_enough_for_the_exact_method_only() -> None:
    for method in (Method.T, Method.BCA):
        assert not Sample.of(np.arange(LEAST_UNITS - 1), method=method).enough
        assert Sample.of(np.arange(LEAST_UNITS), method=method).enough
    assert Sample.of([1, 0]).enough


@given(VALUES, ALPHAS, EDGES)
def test_students_interval_is_that_of_the_t_test(
    values: list[float], alpha: float, edge: float
) -> None:
    assume(np.ptp(values) > 0)
    sample = Sample.of(values, method=Method.T)
    test = stats.ttest_1samp(values, edge, alternative="greater")
    both = test.confidence_interval(1 - alpha)
    assert sample.p_above(edge) == pytest.approx(test.pvalue, rel=1e-9)
    assert sample.interval(alpha).low == pytest.approx(both.low, rel=1e-9, abs=1e-12)
    other = stats.ttest_1samp(values, edge, alternative="less")
    assert sample.p_below(edge) == pytest.approx(other.pvalue, rel=1e-9)


@given(VALUES, st.integers(1, 1500).map(lambda number: number / 1000))
def test_equivalence_is_two_one_sided_tests(values: list[float], margin: float) -> None:
    assume(np.ptp(values) > 0)
    tost = max(
        stats.ttest_1samp(values, -margin, alternative="greater").pvalue,
        stats.ttest_1samp(values, margin, alternative="less").pvalue,
    )
    assume(abs(tost - 0.05) > 1e-9)
    interval = Sample.of(values, method=Method.T).interval(0.05)
    verdict = Region.of(Kind.EQUIVALENT, margin).verdict(interval)
    assert (verdict is Verdict.SUPPORTED) == (tost < 0.05)


@pytest.mark.parametrize("size", [1e-300, 1e-110, 1e-14, 1e14])
def test_no_size_of_values_warns_or_fails(size: float) -> None:
    for method in (Method.T, Method.BCA):
        sample = Sample.of(np.array([0.0, 1.0, 2.0, 5.0]) * size, method=method)
        interval = sample.interval()
        assert interval.low <= sample.mean <= interval.high
        assert sample.p_above(10 * size) == 1.0 or method is Method.T


def test_nearly_equal_values_far_from_zero_do_not_warn() -> None:
    sample = Sample.of([0.1, 0.1, np.nextafter(0.1, 1)], method=Method.T)
    assert sample.interval().low <= 0.1
    assert sample.p_above(0.0) < 1e-12


@given(SIGNS, ALPHAS)
def test_the_shares_are_bounded_one_by_one(values: list[float], alpha: float) -> None:
    sample = Sample.of(values, method=Method.EXACT)
    more, fewer = values.count(1.0), values.count(-1.0)
    more_low, more_high = clopper_pearson(more, len(values), alpha / 2)
    fewer_low, fewer_high = clopper_pearson(fewer, len(values), alpha / 2)
    low, high = more_low - fewer_high, more_high - fewer_low
    low = max(low, 5e-324) if mcnemar(more, fewer) <= alpha else low
    high = min(high, -5e-324) if mcnemar(fewer, more) <= alpha else high
    interval = sample.interval(alpha)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)


def test_the_bounds_are_those_of_binomtest() -> None:
    more = stats.binomtest(40, 200).proportion_ci(0.95, method="exact")
    fewer = stats.binomtest(2, 200).proportion_ci(0.95, method="exact")
    interval = pairs(40, 2, 200).interval(0.05)
    assert interval.low == pytest.approx(more.low - fewer.high, abs=1e-9)
    assert interval.high == pytest.approx(more.high - fewer.low, abs=1e-9)


@given(SIGNS)
def test_at_zero_the_exact_p_is_mcnemars(values: list[float]) -> None:
    sample = Sample.of(values)
    more, fewer = values.count(1.0), values.count(-1.0)
    assert sample.p_above(0.0) == pytest.approx(mcnemar(more, fewer), rel=1e-9)
    assert sample.p_below(0.0) == pytest.approx(mcnemar(fewer, more), rel=1e-9)


@given(SIGNS, ALPHAS)
def test_the_verdict_at_zero_is_mcnemars(values: list[float], alpha: float) -> None:
    more, fewer = values.count(1.0), values.count(-1.0)
    expected = Verdict.INCONCLUSIVE
    if mcnemar(more, fewer) <= alpha:
        expected = Verdict.SUPPORTED
    elif mcnemar(fewer, more) <= alpha:
        expected = Verdict.REFUTED
    assert Region.of(Kind.BETTER, 0).verdict(Sample.of(values).interval(alpha)) is expected


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.2, 0.45])
def test_the_separate_bounds_never_part_before_mcnemars_test(alpha: float) -> None:
    # `p_above` rests on it: then only McNemar's test moves the bound across zero.
    units = np.arange(1, 81)[:, None, None]
    more, fewer = np.arange(81)[:, None], np.arange(81)
    real = (more + fewer <= units) & (more > 0) & (fewer < units)
    low = special.betaincinv(np.maximum(more, 1), np.maximum(units - more, 0) + 1, alpha / 2)
    high = special.betainccinv(fewer + 1, np.maximum(units - fewer, 1), alpha / 2)
    p = stats.binom.sf(more - 1, more + fewer, 0.5)
    assert not (real & (low >= high) & (p > alpha)).any()


@pytest.mark.parametrize("units", [5, 12, 25])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_exact_bounds_miss_no_more_than_they_promise(units: int, alpha: float) -> None:
    # Every table of so many pairs, weighted by its probability: nothing is simulated.
    tables = [(b, c) for b in range(units + 1) for c in range(units + 1 - b)]
    lows = np.array([pairs(b, c, units).interval(alpha).low for b, c in tables])
    counts = np.array([(b, c, units - b - c) for b, c in tables])
    for discordant in (0.05, 0.3, 0.6, 0.98):
        for mean in discordant * np.array([-0.9, -0.3, -0.01, -0.0001, 0.0, 0.3, 0.9]):
            share = (discordant + mean) / 2
            chances = [share, share - mean, 1 - discordant]
            weights = stats.multinomial.pmf(counts, units, chances)
            assert weights[lows > mean + 1e-12].sum() <= alpha


@pytest.mark.parametrize("discordant", [2, 4, 5, 20])
def test_mcnemars_test_rejects_at_its_own_level(discordant: int) -> None:
    sample = pairs(discordant, 0, 40)
    assert sample.p_above(0.0) == 2.0**-discordant
    assert sample.interval(2.0**-discordant).low > 0


def test_ties_alone_have_a_width() -> None:
    # Twenty identical pairs do not rule out that one in ten differs: 0.9^20 is 12 %.
    interval = pairs(0, 0, 20).interval(0.05)
    assert interval.high == -interval.low == pytest.approx(1 - 0.025 ** (1 / 20))


def test_a_fully_discordant_sample() -> None:
    assert pairs(60, 0, 60).p_above(0.0) == pytest.approx(2.0**-60)
    assert pairs(60, 0, 60).interval().high == 1.0


def test_the_bootstrap_is_bca() -> None:
    values = np.random.default_rng(4).exponential(size=40)
    mine = bca(values, np.random.default_rng(5), 0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "RESAMPLES", 5000)
        interval = Sample.of(values, method=Method.BCA).interval(0.05)
    # Two sets of 5000 resamples: quantiles of a mean of sd 0.15 agree to about 0.005.
    assert (interval.low, interval.high) == pytest.approx(mine, abs=0.02)
    assert interval.high - values.mean() > values.mean() - interval.low


def test_the_seed_decides_the_bootstrap() -> None:
    values = np.random.default_rng(4).exponential(size=40)
    first, second, third = (
        Sample.of(values, method=Method.BCA, seed=seed).interval() for seed in (1, 1, 2)
    )
    assert first == second != third


def test_batches_do_not_change_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample.of(np.random.default_rng(4).exponential(size=40), method=Method.BCA)
    whole = sample.interval()
    monkeypatch.setattr(bounds, "_BATCH", 1000)
    assert sample.interval() == whole


def test_levels_too_small_for_the_resamples_have_no_bound() -> None:
    sample = Sample.of([1.0, 2.0, 3.0, 4.0, 5.0], method=Method.BCA)
    assert sample.p_above(-100.0) == 1 / 500
    assert sample.interval(0.0019) == Interval(mean=3.0, low=-math.inf, high=math.inf)


def test_near_one_half_the_bootstrap_still_holds_the_mean() -> None:
    # Without a limit 16 of these 20 intervals would not.
    for seed in range(20):
        values = -(np.random.default_rng(seed).exponential(size=12) ** 2)
        interval = Sample.of(values, method=Method.BCA).interval(0.49)
        assert interval.low <= interval.mean <= interval.high


def test_a_correction_that_cannot_be_computed_is_left_out() -> None:
    # The cubes of such differences underflow, so that the acceleration is 0/0.
    shape = np.array([0.0, 1.0, 2.0, 5.0])
    tiny = Sample.of(shape * 1e-110, method=Method.BCA).interval(0.1)
    drawn = bounds.Resampled.of(shape, 0).result.bootstrap_distribution
    assert tiny.low * 1e110 == pytest.approx(np.quantile(drawn, 0.1))


def bca(values: NDArray[np.float64], rng: np.random.Generator, alpha: float) -> tuple[float, float]:
    """Efron's formulas (1987), one by one."""
    units, mean = len(values), values.mean()
    means = np.array([rng.choice(values, units).mean() for _ in range(5000)])
    bias = stats.norm.ppf((means < mean).mean())
    others = np.array([np.delete(values, unit).mean() for unit in range(units)])
    spread = others.mean() - others
    acceleration = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
    levels = []
    for quantile in stats.norm.ppf([alpha, 1 - alpha]):
        moved = bias + quantile
        levels.append(stats.norm.cdf(bias + moved / (1 - acceleration * moved)))
    low, high = np.quantile(means, levels)
    return float(low), float(high)
