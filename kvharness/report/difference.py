"""Means with intervals, and paired differences of two policies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from scipy import stats

from kvharness.claims.part import ALPHA
from kvharness.statistics.estimate import Interval, Sample
from kvharness.statistics.method import Method

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: Intervals of means are two-sided 95 %, those of differences 90 %, as claims are judged.
MEAN_LEVEL, DIFFERENCE_LEVEL = 95, 90


class Relation(StrEnum):
    """What a comparison says of its first policy."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean of some items; ``interval`` is None for fewer than two."""

    mean: float
    units: int
    interval: Interval | None

    @classmethod
    def of(cls, values: Collection[float]) -> Self | None:
        """Student's t over items; None where there are none."""
        if not values:
            return None
        sample = Sample.of(list(values), method=Method.T)
        found = sample.interval(0.025)
        interval = found if math.isfinite(found.low) else None
        return cls(mean=sample.mean, units=sample.units, interval=interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Policy minus baseline on the items that both answered; above 0 the policy is better."""

    sample: Sample

    @classmethod
    def of(cls, policy: Mapping[str, float], baseline: Mapping[str, float]) -> Self | None:
        """None where they share no item."""
        shared = sorted(policy.keys() & baseline.keys())
        if not shared:
            return None
        return cls(sample=Sample.of([policy[item] - baseline[item] for item in shared]))

    @property
    def mean(self) -> float:
        return self.sample.mean

    @property
    def units(self) -> int:
        return self.sample.units

    @property
    def interval(self) -> Interval | None:
        """None where the items are too few for one."""
        found = self.sample.interval(ALPHA)
        return found if math.isfinite(found.low) and math.isfinite(found.high) else None

    @property
    def p(self) -> float:
        """Two-sided, of no difference; 1 where the items are too few to decide anything."""
        if not self.sample.enough:
            return 1.0
        if self.sample.method is Method.EXACT:
            return self._mcnemar()
        return min(1.0, 2 * min(self.sample.p_above(0), self.sample.p_below(0)))

    def _mcnemar(self) -> float:
        # The exact method's own p-value at 0, without the search that other edges need.
        more, fewer = (int((sign * self.sample.values > 0).sum()) for sign in (1, -1))
        return float(stats.binomtest(more, more + fewer).pvalue) if more + fewer else 1.0

    def relation(self, adjusted: float) -> Relation:
        """The verdict at a p-value corrected for the number of comparisons."""
        if adjusted > ALPHA or self.mean == 0:
            return Relation.UNDECIDED
        return Relation.BETTER if self.mean > 0 else Relation.WORSE
