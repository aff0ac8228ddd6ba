"""How numbers are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvharness.report.difference import Difference, Mean
    from kvharness.statistics.estimate import Interval

NOTHING = "–"  # noqa: RUF001 - a dash, in the width of a figure
_MINUS = "−"  # noqa: RUF001 - the sign


def number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return NOTHING
    # Adding 0 turns -0 into 0.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", _MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    if value is None:
        return NOTHING
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}".replace("-", _MINUS) if rounded else f"{0:.{digits}f}"


def span(interval: Interval | None, digits: int = 2) -> str:
    """Both ends; empty without an interval."""
    if interval is None:
        return ""
    return f"[{number(interval.low, digits)}, {number(interval.high, digits)}]"


def mean(found: Mean | None) -> str:
    """``0.31 [0.25, 0.37]``."""
    return NOTHING if found is None else f"{number(found.mean)} {span(found.interval)}".strip()


def difference(found: Difference | None) -> str:
    """``+0.12 [0.02, 0.22]``."""
    return NOTHING if found is None else f"{signed(found.mean)} {span(found.interval)}".strip()


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def count(value: int, noun: str, plural: str = "") -> str:
    """``1 item``, ``8,280 records``; the plural has an s if no other is given."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {plural or f'{noun}s'}"


def milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"
