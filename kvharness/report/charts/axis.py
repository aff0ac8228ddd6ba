"""From numbers to places on a chart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_TICKS = 8
#: Numbers nearer than this are one number: an exact bound can be the next one above 0.
_LEAST = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A linear map from ``low`` .. ``high`` to the pixels ``start`` .. ``end``."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(
        cls, numbers: Iterable[float], *, start: float, end: float, include: Sequence[float] = ()
    ) -> Self:
        """Holds all of them and ends on ticks."""
        given = [number for number in (*numbers, *include) if math.isfinite(number)] or [0.0, 1.0]
        low, high = min(given), max(given)
        if high - low <= _LEAST * max(1.0, abs(low), abs(high)):
            low, high = low - 0.5, high + 0.5
        # Rounding outwards can ask for a larger step, which is then rounded to as well.
        step = 0.0
        while step != (step := _step(low, high)):
            low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return cls(low=low, high=high, start=start, end=end)

    def __call__(self, number: float) -> float:
        """The place, to a tenth of a pixel; what lies outside is put on the edge."""
        inside = min(max(number, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels."""
        step = _step(self.low, self.high)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self(n * step), _label(n * step, step)) for n in range(first, last + 1)]


def apart(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Places as near to the wanted ones as a gap between them allows, in the same order.

    Where there is not room for all between ``low`` and ``high``, they go on below.
    """
    order = sorted(range(len(wanted)), key=lambda number: (wanted[number], number))
    placed: list[float] = []
    for number in order:
        least = placed[-1] + gap if placed else low
        placed.append(max(wanted[number], least))
    limit = max(high, low + gap * (len(placed) - 1))
    for back in range(len(placed) - 1, -1, -1):
        placed[back] = min(placed[back], limit)
        limit = placed[back] - gap
    places = dict(zip(order, placed, strict=True))
    return [round(places[number], 1) for number in range(len(wanted))]


def _step(low: float, high: float) -> float:
    """1, 2 or 5 times a power of ten."""
    rough = (high - low) / (_MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _label(number: float, step: float) -> str:
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    # Adding 0 turns -0 into 0.
    return f"{round(number, places) + 0.0:.{places}f}".replace("-", "−")  # noqa: RUF001
