"""Means with their intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class PlusMinus:
    """A mean with the half-width of its two-sided 95 % interval (Student's t over items).

    One item has no interval: ``half`` is 0 and not shown.
    """

    mean: float
    half: float
    units: int

    def __str__(self) -> str:
        if not self.units:
            return "-"
        if self.units < 2:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ±{self.half:.2f}"


def plus_minus(values: Sequence[float]) -> PlusMinus:
    """Mean and 95 % half-width of one number for each item."""
    units = len(values)
    half = float(stats.sem(values) * stats.t.ppf(0.975, units - 1)) if units > 1 else 0.0
    mean = fmean(values) if units else math.nan
    return PlusMinus(mean=mean, half=half, units=units)
