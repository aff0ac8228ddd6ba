"""Before a run: the smallest difference that each claim will be able to show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tabulate import tabulate

from kvharness.claims.claim import Unit
from kvharness.claims.metric import MAYBE_BINARY, TYPICAL_SD
from kvharness.statistics.method import Method
from kvharness.statistics.region import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kvharness.claims.claim import Claim, Comparison
    from kvharness.claims.evidence import Evidence
    from kvharness.claims.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a run of a planned size finds.

    Attributes:
        claim: that is to be judged.
        units: fewest items (or seeds) of its parts.
        detectable: the smallest distance from the claim's margin that 80 % of such runs find, in
            the hardest part; infinite where units are too few for any verdict, None where the
            spread of the metric is not known yet.
    """

    claim: Claim
    units: int
    detectable: float | None

    @property
    def too_small(self) -> bool:
        """Whether the run cannot support the claim even if nothing differs."""
        if self.detectable is None:
            return False
        lenient = self.claim.kind is not Kind.BETTER and self.claim.margin > 0
        return math.isinf(self.detectable) or (lenient and self.detectable > self.claim.margin)


def outlooks(
    claims: Iterable[Claim], plan: Plan, recorded: Evidence | None = None
) -> list[Outlook]:
    """Of every claim of which a part is planned.

    The spread is that of earlier records where there are any, else one that is typical of the
    metric.
    """
    found = []
    for claim in claims:
        sizes = [(part, _units(claim, part, plan)) for part in claim.comparisons()]
        planned = [(part, units) for part, units in sizes if units]
        if planned:
            found.append(_outlook(claim, planned, recorded))
    return found


def lines(found: Sequence[Outlook]) -> Iterator[str]:
    """A row for each claim, under what the columns mean."""
    yield (
        "  'finds' is the smallest difference from the margin that 80 % of runs of this size find"
    )
    rows = [[each.claim.id, f"{each.claim.margin:g}", _finds(each)] for each in found]
    table = tabulate(rows, headers=["claim", "margin", "finds"], disable_numparse=True)
    yield from (f"  {line}".rstrip() for line in table.splitlines())


def _finds(outlook: Outlook) -> str:
    claim, units = outlook.claim, f"{outlook.units} {outlook.claim.unit.value}s"
    if outlook.detectable is None:
        return f"not known before {claim.metric} was measured once, with {units}"
    if math.isinf(outlook.detectable):
        return f"nothing: {units} are too few"
    short = ": this run cannot settle it" if outlook.too_small else ""
    return f"{outlook.detectable:.2g} {claim.metric} with {units}{short}"


def _outlook(
    claim: Claim, planned: Sequence[tuple[Comparison, int]], recorded: Evidence | None
) -> Outlook:
    sizes = [_detectable(claim, part, units, recorded) for part, units in planned]
    known = [size for size in sizes if size is not None]
    return Outlook(
        claim=claim,
        units=min(units for _, units in planned),
        detectable=max(known) if len(known) == len(sizes) else None,
    )


def _units(claim: Claim, part: Comparison, plan: Plan) -> int:
    both = plan.of(part.suite, part.policy) & plan.of(part.suite, part.baseline)
    return len(both) * (plan.items if claim.unit is Unit.ITEM else 1)


def _detectable(
    claim: Claim, part: Comparison, units: int, recorded: Evidence | None
) -> float | None:
    from kvharness.statistics.estimate import LEAST_UNITS  # noqa: PLC0415 - scipy
    from kvharness.statistics.power import smallest_detectable  # noqa: PLC0415 - scipy

    exact = claim.method is Method.EXACT or claim.metric in MAYBE_BINARY
    if units < LEAST_UNITS and not exact:
        return math.inf
    spread = None if recorded is None else _recorded_sd(claim, part, recorded)
    spread = TYPICAL_SD.get(claim.metric) if spread is None else spread
    return None if spread is None else smallest_detectable(spread, units)


def _recorded_sd(claim: Claim, part: Comparison, recorded: Evidence) -> float | None:
    """Of earlier differences, if they are enough to tell."""
    from kvharness.claims.part import paired  # noqa: PLC0415 - scipy

    policy, baseline = (
        recorded.values(part.suite, column, claim.metric, claim.unit)
        for column in (part.policy, part.baseline)
    )
    if isinstance(policy, str) or isinstance(baseline, str):
        return None
    if len(policy.keys() & baseline.keys()) < 2:
        return None
    return paired(policy, baseline).sd
