"""Retention curves: the mean of each policy at each retention, with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.contract import FIXED_ANCHORS, retention_from_text
from kvharness.report import notation
from kvharness.report.charts.axis import Axis, apart
from kvharness.report.difference import Mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kvharness.report.survey import Survey

WIDTH = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 116, 10, 34
_LEAST_HEIGHT, _LABEL_GAP = 270, 12.5
#: Pixels between ticks: below that their labels would run into each other.
_TICK_GAP = 18
#: Pixels between neighbours at one retention, so that their intervals do not hide each other.
_DODGE = 1.6
#: Room for it beyond the largest retention.
_MARGIN = 1.07
METRICS = ("score", "recovered", "nll")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A mean; ``low`` and ``high`` are the ends of its interval, or None."""

    x: float
    y: float
    low: float | None
    high: float | None
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A policy, and where its name stands."""

    policy: str
    points: tuple[Point, ...]
    label: float

    @property
    def path(self) -> str:
        return " ".join(f"{point.x},{point.y}" for point in self.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """One chart: a suite and a metric.

    Attributes:
        means: what it shows, by policy and retention.
        bands: the anchors that have one value, as wide as the chart.
        lines: all other policies.
    """

    suite: str
    metric: str
    name: str
    items: int
    height: float
    x: Axis
    y: Axis
    retentions: tuple[str, ...]
    means: Mapping[tuple[str, str], Mean]
    bands: tuple[Line, ...]
    lines: tuple[Line, ...]

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        found: list[tuple[float, str]] = []
        for text in self.retentions:
            place = self.x(_share(text))
            if not found or place - found[-1][0] >= _TICK_GAP:
                found.append((place, text.replace("_", "/")))
        return found

    @property
    def label_x(self) -> float:
        return WIDTH - _RIGHT + 16


def curves(survey: Survey, metric: str) -> list[Curves]:
    """One for each suite on which the metric was measured."""
    return [_curves(survey, suite, metric) for suite in survey.parts("all suites", metric)]


def _curves(survey: Survey, suite: str, metric: str) -> Curves:
    means = dict(_means(survey, suite, metric))
    policies = [policy for policy in survey.policies if any(p == policy for p, _ in means)]
    height = max(_LEAST_HEIGHT, _LABEL_GAP * len(policies)) + _TOP + _BOTTOM
    ends = [end for mean in means.values() for end in _ends(mean)]
    if metric == "score":
        # Scores are shares: an interval that leaves 0 .. 1 is cut off there.
        ends = []
    y = Axis.around(
        ends, start=height - _BOTTOM, end=_TOP, include=() if metric == "nll" else (0.0, 1.0)
    )
    shares = [_share(text) for text in survey.retentions] or [1.0]
    x = Axis(low=0.0, high=max(shares) * _MARGIN, start=_LEFT, end=WIDTH - _RIGHT)
    drawn = _lines(survey, policies, means, x, y)
    return Curves(
        suite=suite,
        metric=metric,
        name=survey.score_name(suite) if metric == "score" else metric,
        items=survey.items(suite),
        height=height,
        x=x,
        y=y,
        retentions=survey.retentions,
        means=means,
        bands=tuple(line for line in drawn if line.policy in FIXED_ANCHORS),
        lines=tuple(line for line in drawn if line.policy not in FIXED_ANCHORS),
    )


def _means(survey: Survey, suite: str, metric: str) -> Iterator[tuple[tuple[str, str], Mean]]:
    for policy in survey.policies:
        for retention in survey.retentions or ("",):
            mean = Mean.of(survey.values(suite, policy, retention, metric).values())
            if mean is not None:
                yield (policy, retention), mean


def _ends(mean: Mean) -> Iterator[float]:
    yield mean.mean
    if mean.interval is not None:
        yield mean.interval.low
        yield mean.interval.high


def _lines(
    survey: Survey,
    policies: Sequence[str],
    means: Mapping[tuple[str, str], Mean],
    x: Axis,
    y: Axis,
) -> list[Line]:
    points = []
    for number, policy in enumerate(policies):
        shift = 0.0 if policy in FIXED_ANCHORS else _DODGE * (number - (len(policies) + 1) / 2)
        points.append(
            tuple(
                _point(
                    survey.label(policy) + _where(policy, retention),
                    retention,
                    means[policy, retention],
                    place=(x, y, shift),
                )
                for retention in survey.retentions or ("",)
                if (policy, retention) in means
            )
        )
    wanted = [found[-1].y for found in points]
    labels = apart(wanted, gap=_LABEL_GAP, low=y.end + 4, high=y.start)
    return [
        Line(policy=policy, points=found, label=label)
        for policy, found, label in zip(policies, points, labels, strict=True)
    ]


def _where(policy: str, retention: str) -> str:
    return "" if policy in FIXED_ANCHORS else f", keep {retention}"


def _point(name: str, retention: str, mean: Mean, *, place: tuple[Axis, Axis, float]) -> Point:
    x, y, shift = place
    interval = mean.interval
    return Point(
        x=round(x(_share(retention)) + shift, 1),
        y=y(mean.mean),
        low=None if interval is None else y(interval.low),
        high=None if interval is None else y(interval.high),
        tip=f"{name}: {notation.mean(mean)}, n = {mean.units}",
    )


def _share(retention: str) -> float:
    return float(retention_from_text(retention)) if retention else 1.0
