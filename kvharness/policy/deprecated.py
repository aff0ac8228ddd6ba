"""Spellings of the interface that go on working for one minor release, and warn."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from kvharness.policy.observation.standard import (
    Boundaries,
    ColumnSums,
    Future,
    HiddenSimilarity,
    HiddenStates,
    Queries,
)

if TYPE_CHECKING:
    from kvharness.policy.observation.base import Observation, Observations
    from kvharness.policy.observation.probe import Probe


def Needs(  # noqa: N802, PLR0913 - it was a class of so many fields
    *,
    queries: int = 0,
    column_sums: bool = False,
    future: bool = False,
    hidden_similarity: bool = False,
    boundaries: bool = False,
    probes: frozenset[Probe] = frozenset(),
    hidden_states: bool = False,
) -> Observations:
    """The observations of what ``needs`` was before 0.1.0; write the frozenset itself."""
    asked: dict[Observation[Any], bool] = {
        ColumnSums(): column_sums,
        Future(): future,
        HiddenSimilarity(): hidden_similarity,
        Boundaries(): boundaries,
        HiddenStates(): hidden_states,
    }
    found: list[Observation[Any]] = [Queries(queries)] if queries else []
    found += [each for each, wanted in asked.items() if wanted]
    found += probes
    shown = f"frozenset({{{', '.join(map(str, found))}}})" if found else "frozenset()"
    warnings.warn(
        f"kvharness.Needs goes away in 0.2: write needs = {shown}",
        DeprecationWarning,
        stacklevel=2,
    )
    return frozenset(found)
