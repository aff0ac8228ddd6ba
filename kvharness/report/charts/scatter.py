"""Evidence kept against score: does keeping the right tokens explain the answers?"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from kvharness.contract import FIXED_ANCHORS
from kvharness.report import notation
from kvharness.report.charts.axis import Axis
from kvharness.report.survey import ALL

if TYPE_CHECKING:
    from kvharness.report.survey import Survey

WIDTH, HEIGHT = 360, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 12, 12, 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A policy at a retention: evidence kept and score, means over items, and their places."""

    retention: str
    evidence: float
    score: float
    x: float
    y: float
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """A policy's dots from its smallest retention to its largest."""

    policy: str
    dots: tuple[Dot, ...]

    @property
    def path(self) -> str:
        return " ".join(f"{dot.x},{dot.y}" for dot in self.dots)

    @property
    def by_retention(self) -> dict[str, Dot]:
        """Under the empty text what does not depend on it."""
        return {dot.retention: dot for dot in self.dots}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """One suite."""

    suite: str
    name: str
    items: int
    x: Axis
    y: Axis
    trails: tuple[Trail, ...]


def scatters(survey: Survey) -> list[Scatter]:
    """One for each suite whose items say where their evidence stands."""
    x = Axis(low=0.0, high=1.0, start=_LEFT, end=WIDTH - _RIGHT)
    y = Axis(low=0.0, high=1.0, start=HEIGHT - _BOTTOM, end=_TOP)
    return [
        Scatter(
            suite=suite,
            name=survey.score_name(suite),
            items=survey.items(suite),
            x=x,
            y=y,
            trails=tuple(_trails(survey, suite, x, y)),
        )
        for suite in survey.parts(ALL, "evidence_kept")
    ]


def _trails(survey: Survey, suite: str, x: Axis, y: Axis) -> list[Trail]:
    found = []
    for policy in survey.policies:
        fixed = policy in FIXED_ANCHORS
        retentions = survey.retentions[:1] or ("",) if fixed else survey.retentions
        dots = [_dot(survey, suite, (policy, retention), x, y) for retention in retentions]
        kept = tuple(dot for dot in dots if dot is not None)
        if kept:
            found.append(Trail(policy=policy, dots=kept))
    return found


def _dot(survey: Survey, suite: str, column: tuple[str, str], x: Axis, y: Axis) -> Dot | None:
    policy, retention = column
    evidence = survey.values(suite, policy, retention, "evidence_kept")
    score = survey.values(suite, policy, retention, "score")
    if not evidence or not score:
        return None
    kept, right = fmean(evidence.values()), fmean(score.values())
    where = "" if policy in FIXED_ANCHORS else f", keep {retention}"
    return Dot(
        retention="" if policy in FIXED_ANCHORS else retention,
        evidence=kept,
        score=right,
        x=x(kept),
        y=y(right),
        tip=(
            f"{survey.label(policy)}{where}: evidence kept {notation.number(kept)}, score "
            f"{notation.number(right)}, n = {len(score)}"
        ),
    )
