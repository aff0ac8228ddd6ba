"""Intervals for the mean of paired differences: Student's t, BCa bootstrap, exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from kvharness.statistics.bounds import Exact, Fixed, Resampled, Student
from kvharness.statistics.method import Method

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from kvharness.statistics.bounds import LowerBound

#: With fewer units only the exact method keeps its promise for differences that are not normal.
LEAST_UNITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and an interval around it; ``low`` and ``high`` may be infinite."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Paired differences, one for each unit; make it with `Sample.of`.

    Attributes:
        values: [units], finite.
        method: how the interval is made; never AUTO.
        seed: of the bootstrap; the other methods draw nothing.
    """

    values: NDArray[np.float64]
    method: Method
    seed: int = 0

    @classmethod
    def of(cls, values: ArrayLike, *, method: Method = Method.AUTO, seed: int = 0) -> Self:
        """AUTO is exact where every value is -1, 0 or 1, and Student's t elsewhere.

        Identical answers to all questions are such values too: whether they are binary pairs, of
        which few say little, or equal numbers, only the caller knows.

        Raises:
            ValueError: there are no values, some are not finite, or the exact method is asked for
                values that are not all -1, 0 or 1.
        """
        array = np.array(values, dtype=np.float64)
        if array.ndim != 1 or not array.size or not np.isfinite(array).all():
            raise ValueError(f"differences must be a list of finite numbers, got {values!r}")
        binary = bool(np.isin(array, (-1, 0, 1)).all())
        if method is Method.EXACT and not binary:
            raise ValueError("the exact method takes differences of -1, 0 and 1 only; use t or bca")
        if method is Method.AUTO:
            method = Method.EXACT if binary else Method.T
        return cls(values=array, method=method, seed=seed)

    @property
    def units(self) -> int:
        return self.values.size

    @property
    def mean(self) -> float:
        return _mean(self.values)

    @property
    def sd(self) -> float:
        """With ``units - 1`` in the denominator; 0 for one unit."""
        return float(self.values.std(ddof=1)) if np.ptp(self.values) else 0.0

    @property
    def enough(self) -> bool:
        """Whether a verdict may rest on it."""
        return self.units >= LEAST_UNITS or self.method is Method.EXACT

    def interval(self, alpha: float = 0.05) -> Interval:
        """Each side misses with probability alpha: 0.05 gives the two-sided 90 % interval.

        Equal values have an interval without width, one unit an infinite one, except by the exact
        method, which needs no spread.

        Raises:
            ValueError: alpha is not between 0 and one half.
        """
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha must lie between 0 and 0.5, got {alpha}")
        low, high = self._lower(self.values).low(alpha), -self._lower(-self.values).low(alpha)
        return Interval(mean=self.mean, low=low, high=high)

    def p_above(self, edge: float) -> float:
        """Smallest alpha at which the interval lies above ``edge``.

        Small: evidence that the true mean exceeds ``edge``. Levels above one half, which no
        interval has, are told apart by Student's t only; the others may give 1.
        """
        return self._lower(self.values).p_above(edge)

    def p_below(self, edge: float) -> float:
        """Smallest alpha at which the interval lies below ``edge``."""
        return self._lower(-self.values).p_above(-edge)

    def _lower(self, values: NDArray[np.float64]) -> LowerBound:
        """The bound of these or of the negated values, which differ in the mean only."""
        if self.method is Method.EXACT:
            return Exact.of(values)
        if self.units == 1:
            return Fixed(-math.inf)
        error = self.sd / math.sqrt(self.units)
        if not error:
            return Fixed(_mean(values))
        if self.method is Method.BCA:
            return Resampled.of(values, self.seed)
        return Student(mean=_mean(values), error=error, units=self.units)


def _mean(values: NDArray[np.float64]) -> float:
    # numpy's mean of three times 0.1 is not 0.1, and an edge may lie exactly there.
    return float(np.clip(values.mean(), values.min(), values.max()))
