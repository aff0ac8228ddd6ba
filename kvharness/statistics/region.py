"""Where a claim says a mean difference lies, and whether an interval puts it there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvharness.statistics.estimate import Interval


class Kind(StrEnum):
    """What is claimed of the mean difference ``d``, signed so that positive is better."""

    BETTER = "better"
    NOT_BETTER = "not_better"
    NOT_WORSE = "not_worse"
    EQUIVALENT = "equivalent"


class Verdict(StrEnum):
    """What the data say of a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    NOT_EVALUATED = "not evaluated"


@dataclass(frozen=True, slots=True)
class Region:
    """Differences from ``low`` to ``high`` for which a claim holds.

    `better` and `not_better` with one margin divide the line: the edge belongs to `not_better`,
    so an interval without width there supports it and refutes `better`.
    """

    low: float
    high: float
    open_low: bool = False

    @classmethod
    def of(cls, kind: Kind, margin: float) -> Region:
        match kind:
            case Kind.BETTER:
                return cls(margin, math.inf, open_low=True)
            case Kind.NOT_BETTER:
                return cls(-math.inf, margin)
            case Kind.NOT_WORSE:
                return cls(-margin, math.inf)
            case Kind.EQUIVALENT:
                return cls(-margin, margin)

    def verdict(self, interval: Interval) -> Verdict:
        """Inside: supported; disjoint: refuted; else inconclusive."""
        above = interval.low > self.low or (interval.low == self.low and not self.open_low)
        if above and interval.high <= self.high:
            return Verdict.SUPPORTED
        below = interval.high < self.low or (interval.high == self.low and self.open_low)
        if below or interval.low > self.high:
            return Verdict.REFUTED
        return Verdict.INCONCLUSIVE
