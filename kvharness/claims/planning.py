"""What a run has to compute so that its claims can be judged, and what it will be able to see."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvharness.claims.claim import Column, Unit
from kvharness.claims.evidence import Plan
from kvharness.claims.metric import TYPICAL_SD
from kvharness.contract import retention_from_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from fractions import Fraction

    from kvharness.cell import Cell, Group
    from kvharness.claims.claim import Claim, Comparison
    from kvharness.claims.evidence import Evidence
    from kvharness.spec import PolicySpec

_LARGEST_SD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Policies and retentions that claims ask for beyond those of the options.

    Attributes:
        policies: to run in addition.
        retentions: for each policy's slug, retentions to run in addition.
    """

    policies: tuple[PolicySpec, ...]
    retentions: Mapping[str, tuple[Fraction, ...]]


def selected(claims: Iterable[Claim], slugs: Iterable[str] | None) -> list[Claim]:
    """Claims of these policies, with their controls; all of them where none is named."""
    claims = list(claims)
    if slugs is None:
        return claims
    named = set(slugs)
    chosen = [claim for claim in claims if claim.policies[0].slug in named]
    controls = {claim.control for claim in chosen}
    return [claim for claim in claims if claim in chosen or claim.id in controls]


def needs(
    claims: Iterable[Claim], *, installed: Iterable[str], retentions: Sequence[Fraction] | None
) -> Needs:
    """What claims need; nothing for claims of policies that are not installed.

    Args:
        claims: the selected ones.
        installed: names of installed policies.
        retentions: those that the user named, which no claim widens; None if none were.
    """
    known, specs = set(installed), {}
    extra: dict[str, set[Fraction]] = defaultdict(set)
    for claim in claims:
        pair = claim.policies
        if not known.issuperset(name for spec in pair for name in spec.names):
            continue
        for spec in pair:
            specs[spec.slug] = spec
        if retentions is None:
            for column in columns(claim):
                if column.retention is not None:
                    extra[column.policy].add(retention_from_text(column.retention))
    return Needs(
        policies=tuple(specs.values()),
        retentions={slug: tuple(sorted(found)) for slug, found in extra.items()},
    )


def columns(claim: Claim) -> list[Column]:
    """Policy and baseline at every retention, each once."""
    pairs = (column for each in claim.comparisons() for column in (each.policy, each.baseline))
    return list(dict.fromkeys(pairs))


def plan_of(cells: Mapping[Group, Sequence[Cell]], items: int) -> Plan:
    """The plan of the cells that pytest collected."""
    seeds: dict[tuple[str, Column], set[int]] = defaultdict(set)
    for group, found in cells.items():
        for cell in found:
            seeds[group.suite, Column(cell.policy, cell.retention_text)].add(group.seed)
    return Plan(items=items, seeds={key: frozenset(each) for key, each in seeds.items()})


def detectable(
    claims: Iterable[Claim], plan: Plan, recorded: Evidence | None = None
) -> dict[str, float]:
    """The smallest difference from its margin that a run of this size finds in 80 % of runs.

    By claim id, over its hardest part; claims of which no part is planned are left out. The
    spread is that of earlier records where there are any, else one that is typical of the metric.
    """
    found = {}
    for claim in claims:
        parts = [_part(claim, each, plan, recorded) for each in claim.comparisons()]
        sizes = [size for size in parts if size is not None]
        if sizes:
            found[claim.id] = max(sizes)
    return found


def _part(
    claim: Claim, comparison: Comparison, plan: Plan, recorded: Evidence | None
) -> float | None:
    from kvharness.inference.power import smallest_detectable  # noqa: PLC0415 - scipy

    seeds = plan.of(comparison.suite, comparison.policy)
    if not seeds or not plan.of(comparison.suite, comparison.baseline):
        return None
    units = len(seeds) * (plan.items if claim.unit is Unit.ITEM else 1)
    spread = _recorded_sd(claim, comparison, recorded) if recorded else None
    sd = TYPICAL_SD.get(claim.metric, _LARGEST_SD) if spread is None else spread
    return smallest_detectable(sd, units)


def _recorded_sd(claim: Claim, comparison: Comparison, recorded: Evidence) -> float | None:
    pair = [
        recorded.values(comparison.suite, column, claim.metric, claim.unit)
        for column in (comparison.policy, comparison.baseline)
    ]
    first, second = (values if isinstance(values, dict) else {} for values in pair)
    differences = [first[item] - second[item] for item in set(first) & set(second)]
    return float(np.std(differences, ddof=1)) if len(differences) > 1 else None
