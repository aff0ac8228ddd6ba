"""Bootstrap over passages: windows of one passage know each other, passages do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """A number with its two-sided 95 % interval."""

    value: float
    low: float
    high: float


def mean_of(values: NDArray[np.float64]) -> Resampled:
    """Mean over passages, BCa."""
    value = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return Resampled(value=value, low=value, high=value)
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, rng=np.random.default_rng(0)
    ).confidence_interval
    return Resampled(value=value, low=float(found.low), high=float(found.high))


def statistic_of(rows: Sequence[NDArray[np.float64]], statistic: Callable[..., float]) -> Resampled:
    """Any statistic of arrays whose first axis is the passage, by percentiles.

    BCa has no use here: an error of calibration cannot be negative, and its bias is its own.
    """
    value = statistic(*rows)
    rng, count = np.random.default_rng(0), len(rows[0])
    drawn = rng.integers(count, size=(_RESAMPLES, count))
    found = [statistic(*(row[index] for row in rows)) for index in drawn]
    low, high = np.quantile(found, [0.025, 0.975])
    return Resampled(value=value, low=float(low), high=float(high))
