"""Which policy is better than which: all pairs, corrected for their number."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from kvharness.report.difference import Difference, Relation
from kvharness.statistics.multiple import holm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kvharness.report.survey import Survey

    Pair = tuple[str, str]
    Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A paired difference, its p-value after Holm, and what follows."""

    difference: Difference
    p: float
    relation: Relation

    @property
    def mirrored(self) -> Relation:
        """What it says of the other policy."""
        mirror = {Relation.BETTER: Relation.WORSE, Relation.WORSE: Relation.BETTER}
        return mirror.get(self.relation, Relation.UNDECIDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """All pairs of policies at one retention, on one scope, in one metric.

    Attributes:
        policies: in the order of their means, the best first.
        comparisons: by pair, the policy that stands first in ``policies`` first.
    """

    scope: str
    metric: str
    retention: str
    policies: tuple[str, ...]
    comparisons: Mapping[Pair, Comparison]

    def relation(self, row: str, column: str) -> Relation | None:
        """What the pair says of ``row``; None where they share no item."""
        found, other = self.comparisons.get((row, column)), self.comparisons.get((column, row))
        if found is None:
            return None if other is None else other.mirrored
        return found.relation


def matrices(survey: Survey, scope: str, metric: str) -> list[Matrix]:
    """One for each retention at which two policies or more were run."""
    found = []
    for retention in survey.retentions:
        values = {
            policy: numbers
            for policy in survey.contenders
            if (numbers := survey.values(scope, policy, retention, metric))
        }
        if len(values) > 1:
            found.append(_matrix(values, scope=scope, metric=metric, retention=retention))
    return found


def _matrix(values: Values, *, scope: str, metric: str, retention: str) -> Matrix:
    order = sorted(values, key=lambda policy: -_mean(values[policy].values()))
    return Matrix(
        scope=scope,
        metric=metric,
        retention=retention,
        policies=tuple(order),
        comparisons=compared(values, list(combinations(order, 2))),
    )


def compared(values: Values, pairs: Sequence[Pair]) -> dict[Pair, Comparison]:
    """Comparisons of these pairs, as one family; pairs that share no item are left out."""
    found = {
        pair: difference
        for pair in pairs
        if (difference := Difference.of(values[pair[0]], values[pair[1]])) is not None
    }
    adjusted = holm([difference.p for difference in found.values()]).tolist()
    return {
        pair: Comparison(difference=difference, p=p, relation=difference.relation(p))
        for (pair, difference), p in zip(found.items(), adjusted, strict=True)
    }


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
