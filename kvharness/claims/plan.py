"""What a run has to compute so that its claims can be judged, and what there should be.

A record that is planned and not there never shrinks a claim's n.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvharness.claims.claim import Column
from kvharness.contract import budget_of, retention_from_text
from kvharness.discovery.presses import requirements
from kvharness.items.suites import is_due

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from fractions import Fraction

    from kvharness.cell import Cell, Group
    from kvharness.claims.claim import Claim
    from kvharness.contract import Contract
    from kvharness.discovery.spec import PolicySpec


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Policies and retentions that claims ask for beyond those of the options.

    Attributes:
        policies: to run in addition.
        retentions: for each policy's slug, retentions to run in addition.
    """

    policies: tuple[PolicySpec, ...]
    retentions: Mapping[str, tuple[Fraction, ...]]


def selected(
    claims: Iterable[Claim], slugs: Iterable[str] | None, *, on_request: bool = False
) -> list[Claim]:
    """Claims of these policies, with their controls; where none is named, those of all.

    Among all, claims ``on_request`` count only where that is asked for.
    """
    claims = list(claims)
    if slugs is None:
        return [claim for claim in claims if on_request or not claim.on_request]
    named = set(slugs)
    chosen = {claim.id for claim in claims if claim.policies[0].slug in named}
    controls = {claim.control for claim in claims if claim.id in chosen}
    return [claim for claim in claims if claim.id in chosen | controls]


def halved(
    claims: Iterable[Claim], chosen: Iterable[Claim], *, installed: Iterable[str] | None
) -> frozenset[str]:
    """Families of which some claims were chosen and others not.

    A claim about policies that are not installed is judged in no run, so it is corrected for in
    none. ``installed`` is None where nothing is run, so that none is needed.
    """
    known = None if installed is None else set(installed)
    inside = {claim.id: claim.family for claim in chosen}
    outside = {
        claim.family
        for claim in claims
        if claim.id not in inside and (known is None or can_run(claim, known))
    }
    return frozenset(family for family in inside.values() if family and family in outside)


def can_run(claim: Claim, installed: AbstractSet[str]) -> bool:
    """Whether all that a claim is about is installed."""
    return {name for spec in claim.policies for name in requirements(spec)} <= installed


def wanted(
    claims: Iterable[Claim], *, installed: Iterable[str] | None, contract: Contract, widen: bool
) -> Wanted:
    """What claims need; nothing for claims of policies that are not installed.

    Args:
        claims: the selected ones.
        installed: names of installed policies; None where a store has what it has.
        contract: of the run; a retention whose budget cannot hold its sinks is not added.
        widen: whether to add retentions: not where the user named some.
    """
    known, specs = None if installed is None else set(installed), {}
    extra: dict[str, set[Fraction]] = defaultdict(set)
    for claim in claims:
        if known is not None and not can_run(claim, known):
            continue
        specs.update({spec.slug: spec for spec in claim.policies})
        for column in columns(claim) if widen else ():
            retention = retention_from_text(column.retention) if column.retention else None
            if retention is not None and _fits(retention, contract):
                extra[column.policy].add(retention)
    return Wanted(
        policies=tuple(specs.values()),
        retentions={slug: tuple(sorted(found)) for slug, found in extra.items()},
    )


def _fits(retention: Fraction, contract: Contract) -> bool:
    return budget_of(retention, contract.context) >= contract.least


def columns(claim: Claim) -> list[Column]:
    """Policy and baseline at every retention, each once."""
    pairs = (column for each in claim.comparisons() for column in (each.policy, each.baseline))
    return list(dict.fromkeys(pairs))


def plan_of(cells: Mapping[Group, Sequence[Cell]], *, items: int, seeds: int) -> Plan:
    """The plan of the cells that pytest selected in a run of ``seeds`` seeds."""
    found: dict[tuple[str, Column], set[int]] = defaultdict(set)
    for group, chosen in cells.items():
        for cell in chosen:
            found[group.suite, Column(cell.policy, cell.retention_text)].add(group.seed)
    return Plan(
        items=items, drawn=seeds, seeds={key: frozenset(each) for key, each in found.items()}
    )
