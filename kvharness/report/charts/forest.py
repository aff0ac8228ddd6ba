"""Forest plots: paired differences of every policy against random, at each retention."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from kvharness.contract import FIXED_ANCHORS
from kvharness.report import notation
from kvharness.report.charts.axis import Axis
from kvharness.report.difference import Difference
from kvharness.report.survey import CHANCE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kvharness.report.survey import Survey

WIDTH = 400
_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 112, 50, 8, 19, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A policy.

    Attributes:
        left, right: ends of its interval; None where it has none.
        clear: whether the interval leaves out zero.
        beyond: whether its mean lies off the axis, which only an anchor's can.
    """

    policy: str
    difference: Difference
    y: float
    x: float
    left: float | None
    right: float | None
    clear: bool
    beyond: bool
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet:
    """One retention."""

    retention: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """One scope and metric; all facets share the axis and the order of policies.

    Attributes:
        differences: what it shows, by policy and retention.
        policies: the largest mean difference first.
        oracles: those that know the true answers.
    """

    scope: str
    metric: str
    suites: tuple[str, ...]
    policies: tuple[str, ...]
    axis: Axis
    facets: tuple[Facet, ...]
    differences: Mapping[tuple[str, str], Difference]
    oracles: frozenset[str]

    @property
    def height(self) -> float:
        return _TOP + _ROW * len(self.policies) + _BOTTOM

    @property
    def units(self) -> str:
        """``60`` or, where they differ, ``48 to 60``."""
        found = {each.units for each in self.differences.values()}
        return f"{min(found)}" if len(found) == 1 else f"{min(found)} to {max(found)}"


def forest(survey: Survey, scope: str, metric: str) -> Forest | None:
    """None where nothing can be compared with random."""
    differences = _differences(survey, scope, metric)
    if not differences:
        return None
    policies = _order(survey.policies, differences)
    ends = _ends(differences, survey.evidence.oracles)
    axis = Axis.around(ends, start=_LEFT, end=WIDTH - _RIGHT, include=(0.0,))
    return Forest(
        scope=scope,
        metric=metric,
        suites=survey.parts(scope, metric),
        policies=policies,
        axis=axis,
        facets=tuple(
            _facet(survey, retention, policies, differences, axis)
            for retention in survey.retentions
            if any(text == retention for _, text in differences)
        ),
        differences=differences,
        oracles=survey.evidence.oracles,
    )


def _differences(survey: Survey, scope: str, metric: str) -> dict[tuple[str, str], Difference]:
    found = {}
    for retention in survey.retentions:
        chance = survey.values(scope, CHANCE, retention, metric)
        for policy in survey.policies:
            if policy != CHANCE and policy not in FIXED_ANCHORS:
                values = survey.values(scope, policy, retention, metric)
                difference = Difference.of(values, chance)
                if difference is not None:
                    found[policy, retention] = difference
    return found


def _order(
    policies: Sequence[str], differences: Mapping[tuple[str, str], Difference]
) -> tuple[str, ...]:
    means = {
        policy: [each.mean for (name, _), each in differences.items() if name == policy]
        for policy in policies
    }
    there = [policy for policy in policies if means[policy]]
    return tuple(sorted(there, key=lambda policy: -fmean(means[policy])))


def _ends(
    differences: Mapping[tuple[str, str], Difference], oracles: Collection[str]
) -> list[float]:
    """Of the policies alone, if there are any: oracles are so far off that they would hide them."""
    ends: list[float] = []
    anchors: list[float] = []
    for (policy, _), each in differences.items():
        interval = each.interval
        found = [each.mean] if interval is None else [interval.low, interval.high]
        (anchors if policy in oracles else ends).extend(found)
    return ends or anchors


def _facet(
    survey: Survey,
    retention: str,
    policies: Sequence[str],
    differences: Mapping[tuple[str, str], Difference],
    axis: Axis,
) -> Facet:
    rows = [
        _row(survey, policy, differences[policy, retention], axis, y=_TOP + _ROW * (number + 0.5))
        for number, policy in enumerate(policies)
        if (policy, retention) in differences
    ]
    return Facet(retention=retention, rows=tuple(rows))


def _row(survey: Survey, policy: str, difference: Difference, axis: Axis, *, y: float) -> Row:
    interval = difference.interval
    return Row(
        policy=policy,
        difference=difference,
        y=y,
        x=axis(difference.mean),
        left=None if interval is None else axis(interval.low),
        right=None if interval is None else axis(interval.high),
        clear=interval is not None and not interval.low <= 0 <= interval.high,
        beyond=not axis.low <= difference.mean <= axis.high,
        tip=(
            f"{survey.label(policy)} minus {CHANCE}: {notation.difference(difference)}, n = "
            f"{difference.units}"
        ),
    )
