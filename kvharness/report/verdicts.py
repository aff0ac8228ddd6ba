"""Claims with their verdicts, the intervals of their parts, and the regions they claim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from kvharness.claims.judgement import Outcome
from kvharness.report import notation
from kvharness.report.charts.axis import Axis
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.claims.judgement import Judgement, Part

WIDTH = 520
_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 150, 12, 6, 18, 26
_SPARK = 4
#: What needs a look comes first.
_ORDER = (Outcome.DIFFERS, Outcome.UNDECIDED, Outcome.AS_EXPECTED, Outcome.NOTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A part's interval on the axis of its claim; None where it could not be computed."""

    part: Part
    y: float
    spark: float
    x: float | None
    left: float | None
    right: float | None

    @property
    def text(self) -> str:
        interval = self.part.interval
        if interval is None:
            return self.part.reason or notation.NOTHING
        return f"{notation.signed(interval.mean, 3)} {notation.span(interval, 3)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A claim as it is shown.

    Attributes:
        region: left and right end of the claimed region in pixels.
        strips: one for each part.
        file: the claims file, without the folders above it.
    """

    judgement: Judgement
    axis: Axis
    region: tuple[float, float]
    strips: tuple[Strip, ...]
    file: str

    @property
    def height(self) -> float:
        return _TOP + _ROW * len(self.strips) + _BOTTOM

    @property
    def spark(self) -> float:
        """Height of the small picture beside the claim's words."""
        return _SPARK * (len(self.strips) + 1)

    @property
    def expected(self) -> str:
        found = self.judgement.expected
        return notation.NOTHING if found is None else found.value

    @property
    def surprising(self) -> bool:
        return self.judgement.outcome in {Outcome.DIFFERS, Outcome.UNDECIDED}


def shown(judgements: Sequence[Judgement]) -> list[Shown]:
    """Surprises first, then as they were given."""
    ordered = sorted(judgements, key=lambda each: _ORDER.index(each.outcome))
    return [_shown(each) for each in ordered if each.verdict is not Verdict.NOT_EVALUATED]


def not_evaluated(judgements: Sequence[Judgement]) -> dict[str, list[str]]:
    """Ids of the claims that were not evaluated, by the reason."""
    reasons: dict[str, list[str]] = {}
    for each in judgements:
        if each.verdict is Verdict.NOT_EVALUATED:
            reasons.setdefault(each.reason, []).append(each.claim.id)
    return reasons


def counts(judgements: Sequence[Judgement]) -> list[tuple[str, int]]:
    """How many claims there are of each verdict."""
    found = [
        (verdict.value, [each.verdict for each in judgements].count(verdict)) for verdict in Verdict
    ]
    return [(name, number) for name, number in found if number]


def cited(judgements: Sequence[Judgement]) -> dict[str, list[str]]:
    """Ids of claims by the source that they cite, in the order of the sources."""
    found: dict[str, list[str]] = {}
    for each in judgements:
        if each.claim.source:
            found.setdefault(each.claim.source, []).append(each.claim.id)
    return dict(sorted(found.items()))


def _shown(judgement: Judgement) -> Shown:
    region = judgement.claim.region
    edges = [edge for edge in (region.low, region.high) if math.isfinite(edge)]
    axis = Axis.around(
        _ends(judgement.parts), start=_LEFT, end=WIDTH - _RIGHT, include=[0.0, *edges]
    )
    return Shown(
        judgement=judgement,
        axis=axis,
        region=(axis(region.low), axis(region.high)),
        strips=tuple(_strip(part, axis, number) for number, part in enumerate(judgement.parts)),
        file="/".join(PurePath(judgement.claim.origin).parts[-2:]),
    )


def _ends(parts: Sequence[Part]) -> list[float]:
    found = [part.interval for part in parts if part.interval is not None]
    return [end for interval in found for end in (interval.low, interval.mean, interval.high)]


def _strip(part: Part, axis: Axis, number: int) -> Strip:
    ends = part.interval
    return Strip(
        part=part,
        y=_TOP + _ROW * (number + 0.5),
        spark=_SPARK * (number + 1),
        x=None if ends is None else axis(ends.mean),
        left=None if ends is None else axis(ends.low),
        right=None if ends is None else axis(ends.high),
    )
