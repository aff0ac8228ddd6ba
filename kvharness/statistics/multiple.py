"""Several tests at once: Holm's correction and tests in a fixed order."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def holm(p: Sequence[float]) -> NDArray[np.float64]:
    """Adjusted p-values in the order of ``p`` (Holm 1979); reject where one is at most alpha.

    Raises:
        ValueError: a p-value is not between 0 and 1.
    """
    given = _checked(p)
    order = np.argsort(given)
    adjusted = np.empty_like(given)
    stepped = np.maximum.accumulate(given[order] * np.arange(given.size, 0, -1))
    adjusted[order] = np.minimum(1, stepped)
    return adjusted


def fixed_sequence(p: Sequence[float], alpha: float) -> int:
    """How many hypotheses are rejected, in order, before the first that is not.

    An order fixed before measuring needs no correction (Maurer, Hothorn and Lehmacher 1995).

    Raises:
        ValueError: a p-value is not between 0 and 1.
    """
    return sum(1 for _ in takewhile(lambda value: value <= alpha, _checked(p)))


def _checked(p: Sequence[float]) -> NDArray[np.float64]:
    given = np.array(p, dtype=np.float64)
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1, got {list(p)}")
    return given
