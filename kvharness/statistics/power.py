"""What a number of units can find, and how many a difference needs: one-sided t tests."""

from __future__ import annotations

import math
from bisect import bisect_left

from scipy import optimize, stats

from kvharness.statistics.estimate import LEAST_UNITS

#: A difference that needs more is as good as none.
MOST_UNITS = 10_000_000


def smallest_detectable(sd: float, units: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Distance of the true mean from an edge that is found with probability ``power``.

    Args:
        sd: of the paired differences; the result is in its unit.
        units: number of differences; fewer than two find nothing (infinity).
        alpha: level of one side of the interval.
        power: share of runs in which the interval excludes the edge.

    Raises:
        ValueError: sd is negative or not finite, or alpha < power < 1 does not hold.
    """
    if not 0 <= sd < math.inf:
        raise ValueError(f"a standard deviation is finite and not negative, got {sd}")
    if not 0 < alpha < power < 1:
        raise ValueError(f"0 < alpha < power < 1 must hold, got alpha {alpha}, power {power}")
    if units < 2:
        return math.inf
    return sd * _shift(units, alpha, power) / math.sqrt(units)


def units_needed(
    sd: float, distance: float, *, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Smallest number of units with which ``distance`` is found with probability ``power``.

    At least `LEAST_UNITS`; None where the distance is not positive or needs more than
    ``MOST_UNITS``.

    Raises:
        ValueError: as for `smallest_detectable`.
    """
    least = smallest_detectable(sd, MOST_UNITS, alpha=alpha, power=power)
    if not (distance > 0 and distance >= least):
        return None

    def found(units: int) -> bool:
        return smallest_detectable(sd, units, alpha=alpha, power=power) <= distance

    sizes = range(LEAST_UNITS, MOST_UNITS + 1)
    return sizes[bisect_left(sizes, True, key=found)]


def _shift(units: int, alpha: float, power: float) -> float:
    """Mean of the t statistic's normal part, in its own sd, that gives the power."""
    freedom = units - 1
    critical = stats.t.isf(alpha, freedom)
    miss = (1 - power) / 2
    # The spread is too large or the mean too small with probability `miss` each at most.
    spread = math.sqrt(stats.chi2.isf(miss, freedom) / freedom)
    enough = critical * spread + stats.norm.isf(miss)
    found = optimize.brentq(
        lambda shift: stats.nct.sf(critical, freedom, shift) - power, 0.0, enough
    )
    return float(found)
