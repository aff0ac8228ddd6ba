"""What came of judging a claim."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    from kvharness.claims.claim import Claim, Comparison
    from kvharness.statistics.estimate import Interval


class Outcome(StrEnum):
    """A verdict beside what was expected."""

    AS_EXPECTED = "as expected"
    DIFFERS = "differs"
    UNDECIDED = "undecided"
    NOTED = "noted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One comparison of a claim.

    Attributes:
        comparison: the suite and the columns.
        verdict: of this part alone, at the uncorrected level.
        interval: of the mean paired difference; None where it could not be computed.
        units, sd: number of paired differences and their standard deviation.
        reason: why there is no interval, or why it was not trusted; empty otherwise.
        needed: units that would settle the part if the mean stays where it is; None unless
            it is undecided, or where no number of units would.
        detectable: smallest difference from the margin found in 80 % of runs of this size.
    """

    comparison: Comparison
    verdict: Verdict
    interval: Interval | None = None
    units: int = 0
    sd: float = 0.0
    reason: str = ""
    needed: int | None = None
    detectable: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A claim's verdict.

    Attributes:
        claim: what was judged.
        verdict: over all parts, corrected for their number and for the claim's family.
        parts: one for each suite and retention.
        reason: why it is inconclusive or was not evaluated, and what is in ``elsewhere``.
        elsewhere: what is not as expectations suppose, such as another context or parts that
            were not selected.
        expected: the verdict expected of this model; None where there is none, or elsewhere.
        control: of its positive control, where it names one that was judged.
    """

    claim: Claim
    verdict: Verdict
    parts: tuple[Part, ...] = ()
    reason: str = ""
    elsewhere: str = ""
    expected: Verdict | None = None
    control: Judgement | None = None

    @property
    def whole(self) -> bool:
        """Whether every part of the claim, and of its control, has an interval."""
        if self.claim.control is not None and (self.control is None or not self.control.whole):
            return False
        return bool(self.parts) and all(part.interval is not None for part in self.parts)

    @property
    def surprising(self) -> bool:
        """Whether a strict run fails: another verdict than the expected one, or none."""
        return self.outcome in {Outcome.DIFFERS, Outcome.UNDECIDED}

    @property
    def outcome(self) -> Outcome:
        if self.expected is None or self.verdict is Verdict.NOT_EVALUATED:
            return Outcome.NOTED
        if self.verdict is self.expected:
            return Outcome.AS_EXPECTED
        if self.verdict is Verdict.INCONCLUSIVE:
            return Outcome.UNDECIDED
        return Outcome.DIFFERS
