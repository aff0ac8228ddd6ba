"""Headroom: how far apart the full cache and the floor are on each suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.contract import Anchor
from kvharness.items.suites import is_solvable
from kvharness.report import notation
from kvharness.report.charts.axis import Axis
from kvharness.report.difference import Difference, Mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvharness.report.survey import Survey

WIDTH, HEIGHT = 360, 58
_LEFT, _RIGHT = 12, 348
#: As in the summary of a run: below it the model cannot do the task, so little can be lost.
_LEAST_FULL = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """A suite's anchors in its own score.

    Attributes:
        oracle: by retention.
        gap: full minus floor on the same items.
        judges: whether the suite can tell policies apart.
        words: what follows, and why.
    """

    suite: str
    name: str
    items: int
    full: Mean | None
    floor: Mean | None
    oracle: Mapping[str, Mean]
    gap: Difference | None
    judges: bool
    words: str
    axis: Axis


def headrooms(survey: Survey) -> list[Headroom]:
    """One for each suite."""
    return [_headroom(survey, suite) for suite in survey.suites]


def _headroom(survey: Survey, suite: str) -> Headroom:
    first = survey.retentions[0] if survey.retentions else ""
    full = survey.values(suite, Anchor.FULL, first, "score")
    floor = survey.values(suite, Anchor.FLOOR, first, "score")
    gap = Difference.of(full, floor)
    oracle = {
        retention: mean
        for retention in survey.retentions
        if (mean := Mean.of(survey.values(suite, Anchor.ORACLE, retention, "score").values()))
    }
    judges, words = _judged(
        Mean.of(full.values()),
        gap,
        survey.lacking.get(suite, ""),
        least=_LEAST_FULL if is_solvable(suite) else 0.0,
    )
    means = [Mean.of(full.values()), Mean.of(floor.values()), *oracle.values()]
    return Headroom(
        suite=suite,
        name=survey.score_name(suite),
        items=survey.items(suite),
        full=means[0],
        floor=means[1],
        oracle=oracle,
        gap=gap,
        judges=judges,
        words=words,
        axis=Axis.around(
            [mean.mean for mean in means if mean], start=_LEFT, end=_RIGHT, include=(0.0, 1.0)
        ),
    )


def _judged(
    full: Mean | None, gap: Difference | None, lacking: str, *, least: float
) -> tuple[bool, str]:
    if full is None or gap is None:
        return False, "full or floor was not run, so nothing says what there is to lose"
    interval = gap.interval
    if interval is None or interval.low <= 0:
        return False, "no headroom: full and floor cannot be told apart, so no policy can be judged"
    if full.mean < least:
        return False, f"the full cache itself scores {notation.number(full.mean)}: little to lose"
    return True, f"can tell policies apart{f', but not in recovered: {lacking}' if lacking else ''}"
