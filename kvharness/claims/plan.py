"""What there should be: a record that is planned and not there never shrinks a claim's n."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvharness.suite import is_due

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kvharness.claims.claim import Column


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Of a run that computes.

    Attributes:
        items: of each seed.
        drawn: seeds that the run was given, of which ``-k`` may have deselected some.
        seeds: of each suite and column that was selected.
    """

    items: int
    drawn: int
    seeds: Mapping[tuple[str, Column], frozenset[int]]

    def of(self, suite: str, column: Column) -> frozenset[int]:
        return self.seeds.get((suite, column), frozenset())

    def drawn_for(self, _policy: str) -> int:
        return self.drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """Of a replay: what the runs in the store were given, as far as it was selected.

    A policy should have every cell that a claim asks for, at all seeds that it was given, of the
    suites that are due.

    Attributes:
        items: of each seed.
        suites: that the store has records of.
        drawn: for each policy the seeds that it was given, as far as the options select them.
        retentions: those that the options select; None where they select all.
        chosen: where tests were deselected, the seeds of those that were not.
    """

    items: int
    suites: Collection[str]
    drawn: Mapping[str, int]
    retentions: Collection[str] | None = None
    chosen: Mapping[tuple[str, Column], Collection[int]] = field(default_factory=dict)

    def of(self, suite: str, column: Column) -> Collection[int]:
        if self.retentions is not None and column.retention not in {None, *self.retentions}:
            return ()
        if not is_due(suite, self.suites):
            return ()
        return self.chosen.get((suite, column), range(self.drawn_for(column.policy)))

    def drawn_for(self, policy: str) -> int:
        return self.drawn.get(policy, 0)
