"""Lower confidence bounds of a mean; the upper bound is that of the negated values, negated."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from scipy import special, stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

RESAMPLES = 9999
#: Numbers resampled at a time: 32 MiB, whatever the number of units.
_BATCH = 2**22
#: Where a search for the smallest level begins.
_LEAST = 1e-300
_JUST_ABOVE_ZERO = math.nextafter(0.0, 1.0)


class LowerBound(Protocol):
    """A bound that the true mean falls below with probability ``alpha``."""

    def low(self, alpha: float) -> float: ...

    def p_above(self, edge: float) -> float:
        """Smallest ``alpha`` at which ``low(alpha)`` exceeds ``edge``; 1 where none does."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same bound at every level: all values are equal, or there is only one."""

    at: float

    def low(self, alpha: float) -> float:  # noqa: ARG002 - it has no spread
        return self.at

    def p_above(self, edge: float) -> float:
        return 0.0 if self.at > edge else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """Student's t; ``error`` is the standard error of the mean and positive."""

    mean: float
    error: float
    units: int

    def low(self, alpha: float) -> float:
        return self.mean + float(special.stdtrit(self.units - 1, alpha)) * self.error

    def p_above(self, edge: float) -> float:
        return float(special.stdtr(self.units - 1, (edge - self.mean) / self.error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """Binary pairs, of which ``more`` differ by +1 and ``fewer`` by -1.

    Each share's Clopper-Pearson bound fails with probability alpha/2 at most, so their difference
    fails with alpha at most (Bonferroni), whatever the correlation of the two.
    Where McNemar's exact test rejects "0 or less" the bound is the next number above 0 at least,
    a false move in alpha of the studies at most; both together miss in 0.93 alpha at most
    (enumerated for 5 to 60 units), for the first alone misses in less than half of alpha.
    That is its price: away from 0 the interval is 1.3 to 2 times as wide as Student's t.
    """

    more: int
    fewer: int
    units: int

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Self:
        return cls(more=int((values > 0).sum()), fewer=int((values < 0).sum()), units=values.size)

    def low(self, alpha: float) -> float:
        moved = _JUST_ABOVE_ZERO if self._mcnemar() <= alpha else -math.inf
        return max(self._apart(alpha), moved)

    def p_above(self, edge: float) -> float:
        apart = _smallest(self._apart, edge, least=_LEAST)
        # At 0 the test always is the smaller of the two (enumerated up to 80 units).
        return apart if edge > 0 else min(apart, self._mcnemar())

    def _apart(self, alpha: float) -> float:
        """Lower bound of one share minus the upper bound of the other."""
        more, fewer, units, tail = self.more, self.fewer, self.units, alpha / 2
        low = special.betaincinv(more, units - more + 1, tail) if more else 0.0
        high = special.betainccinv(fewer + 1, units - fewer, tail) if fewer < units else 1.0
        return float(low - high)

    def _mcnemar(self) -> float:
        discordant = self.more + self.fewer
        if not discordant:
            return 1.0
        return float(stats.binomtest(self.more, discordant, alternative="greater").pvalue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """BCa bootstrap (Efron 1987) of values that are not all equal.

    Levels below one in ``RESAMPLES + 1`` have no bound: so few resamples do not show that tail.
    Where the correction cannot be computed, the plain percentile of the resampled means stands in.
    """

    values: NDArray[np.float64]
    result: Any

    @classmethod
    def of(cls, values: NDArray[np.float64], seed: int) -> Self:
        result = stats.bootstrap(
            (values,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=_batch(values),
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        return cls(values=values, result=result)

    def low(self, alpha: float) -> float:
        if alpha < self._least:
            return -math.inf
        low = self._at(alpha, "BCa")
        low = self._at(alpha, "percentile") if math.isnan(low) else low
        # Near one half the correction of the bias can leave out the mean itself.
        return min(low, float(self.values.mean()))

    def p_above(self, edge: float) -> float:
        return _smallest(self.low, edge, least=self._least)

    @property
    def _least(self) -> float:
        return 1 / (len(self.result.bootstrap_distribution) + 1)

    def _at(self, alpha: float, method: str) -> float:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            again = stats.bootstrap(
                (self.values,),
                np.mean,
                n_resamples=0,
                batch=_batch(self.values),
                confidence_level=1 - alpha,
                alternative="greater",
                method=method,
                bootstrap_result=self.result,
            )
        return float(again.confidence_interval.low)


def _batch(values: NDArray[np.float64]) -> int:
    return max(1, _BATCH // values.size)


def _smallest(low: Callable[[float], float], edge: float, *, least: float) -> float:
    """Smallest level from ``least`` to one half at which ``low`` exceeds ``edge``; else 1."""
    if low(least) > edge:
        return least
    outside, inside = least, 0.5
    if low(inside) <= edge:
        return 1.0
    while inside / outside > 1 + 1e-9:
        middle = math.sqrt(inside * outside)
        if low(middle) > edge:
            inside = middle
        else:
            outside = middle
    return inside
