from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kvharness.statistics.estimate import LEAST_UNITS
from kvharness.statistics.power import MOST_UNITS, smallest_detectable, units_needed

SDS = st.floats(0.01, 100)
SIZES = st.integers(2, 500)


def simulated(distance: float, units: int, alpha: float, *, runs: int = 40_000) -> float:
    """Share of one-sided t tests of normal data that reject."""
    values = np.random.default_rng(units).normal(distance, size=(runs, units))
    error = values.std(axis=1, ddof=1) / math.sqrt(units)
    return float((values.mean(axis=1) / error > stats.t.isf(alpha, units - 1)).mean())


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 12])
@pytest.mark.parametrize("units", [2, 5, 20, 60])
def test_the_smallest_detectable_distance_is_found_in_four_of_five(
    units: int, alpha: float
) -> None:
    distance = smallest_detectable(1.0, units, alpha=alpha)
    # 40,000 runs: a standard error of 0.002.
    assert simulated(distance, units, alpha) == pytest.approx(0.8, abs=0.008)


@pytest.mark.parametrize(
    ("units", "distance"),
    [(5, 1.68), (10, 1.00), (20, 0.66), (50, 0.40), (100, 0.28), (200, 0.20), (500, 0.13)],
)
def test_known_distances_of_the_two_sided_test(units: int, distance: float) -> None:
    assert smallest_detectable(1.0, units, alpha=0.025) == pytest.approx(distance, abs=0.005)


@given(SDS, SIZES)
def test_it_is_in_units_of_the_spread(sd: float, units: int) -> None:
    assert smallest_detectable(sd, units) == pytest.approx(sd * smallest_detectable(1.0, units))


@given(SIZES)
def test_more_units_find_less(units: int) -> None:
    assert smallest_detectable(1.0, units + 1) < smallest_detectable(1.0, units)


def test_fewer_than_two_units_find_nothing() -> None:
    assert smallest_detectable(1.0, 1) == smallest_detectable(0.0, 0) == math.inf


def test_without_spread_everything_is_found() -> None:
    assert smallest_detectable(0.0, 5) == 0.0
    assert units_needed(0.0, 0.01) == LEAST_UNITS


@pytest.mark.parametrize("distance", [0.6, 0.5, 0.35, 0.2])
def test_units_needed_is_the_first_size_with_the_power(distance: float) -> None:
    def power(units: int) -> float:
        critical = stats.t.isf(0.05, units - 1)
        return float(stats.nct.sf(critical, units - 1, distance * math.sqrt(units)))

    naive = next(units for units in range(LEAST_UNITS, 1000) if power(units) >= 0.8)
    assert units_needed(1.0, distance) == naive


def test_large_numbers_follow_the_normal_distribution() -> None:
    normal = ((stats.norm.isf(0.05) + stats.norm.isf(0.2)) / 0.001) ** 2
    assert units_needed(1.0, 0.001) == pytest.approx(normal, rel=1e-5)


@pytest.mark.parametrize("distance", [0.0, -1.0, math.nan, 1e-5])
def test_what_no_number_of_units_finds(distance: float) -> None:
    assert units_needed(1.0, distance) is None


@settings(max_examples=25)
@given(st.floats(1e-3, 10))
def test_units_needed_find_the_distance_and_one_fewer_do_not(distance: float) -> None:
    units = units_needed(1.0, distance)
    assert units is not None
    assert smallest_detectable(1.0, units) <= distance
    assert units == LEAST_UNITS or smallest_detectable(1.0, units - 1) > distance
    assert units <= MOST_UNITS


@pytest.mark.parametrize("sd", [-1.0, math.nan, math.inf])
def test_a_spread_that_is_none_is_refused(sd: float) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        smallest_detectable(sd, 20)
    with pytest.raises(ValueError, match="standard deviation"):
        units_needed(sd, 0.1)


@pytest.mark.parametrize(("alpha", "power"), [(0.0, 0.8), (0.05, 1.0), (0.5, 0.3)])
def test_a_level_that_is_none_is_refused(alpha: float, power: float) -> None:
    with pytest.raises(ValueError, match="alpha < power"):
        smallest_detectable(1.0, 20, alpha=alpha, power=power)
