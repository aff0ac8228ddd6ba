"""How an interval is made; a module of its own, since reading claims needs no scipy."""

from __future__ import annotations

from enum import StrEnum


class Method(StrEnum):
    """How an interval is made: see `kvharness.statistics.bounds`."""

    AUTO = "auto"
    T = "t"
    BCA = "bca"
    EXACT = "exact"
