"""Verdicts in words: the table at the end of a run, and one screen for each claim."""

from __future__ import annotations

import math
import textwrap
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from tabulate import tabulate

from kvharness.claims.judgement import Outcome
from kvharness.report import reproduce
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kvharness.claims.claim import Claim
    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement, Part
    from kvharness.statistics.estimate import Interval

_WIDTH = 98
#: Of a table's last column.
_REASON = 70
#: Bytes, mostly: decimals say nothing there.
_LARGE = 1000
#: So that a claim of many parts still fits on one screen.
_MOST_ROWS = 20
_SCALES = defaultdict(
    lambda: ", more is better",
    {
        "recovered": ", which is 0 with sinks and recents only and 1 with the full cache",
        "nll": " (nats a token, sign changed), more is better",
        "bytes": " (sign changed), more is better",
    },
)


def verdicts(judgements: Sequence[Judgement]) -> Iterator[str]:
    """A row for each judged claim, why others were not, and the count of verdicts."""
    judged = [each for each in judgements if each.verdict is not Verdict.NOT_EVALUATED]
    if judged:
        headers = ["claim", "verdict", "expected", "deciding part [90 % interval]"]
        rows = [
            [each.claim.id, each.verdict.value, _expected(each), _summary(each)] for each in judged
        ]
        yield from tabulate(rows, headers=headers, disable_numparse=True).splitlines()
    yield from _grouped(
        "no expectation applies", {each.claim.id: each.elsewhere for each in judged}
    )
    absent = {each.claim.id: each.reason for each in judgements if each not in judged}
    yield from _grouped("not evaluated", absent)
    yield tally(judgements)


def tally(judgements: Sequence[Judgement]) -> str:
    """One line: claims: 9 supported, 2 refuted; 1 not as expected."""
    found = Counter(each.verdict for each in judgements)
    numbers = [f"{found[verdict]} {verdict.value}" for verdict in Verdict if found[verdict]]
    surprises = sum(each.surprising for each in judgements)
    ending = f"; {surprises} not as expected" if surprises else ""
    return f"claims: {', '.join(numbers) or 'none'}{ending}"


def _grouped(title: str, reasons: Mapping[str, str]) -> Iterator[str]:
    """A line for each reason, with the claims that have it."""
    ids: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        ids.setdefault(reason, []).append(name)
    for reason, names in ids.items():
        if reason:
            yield from textwrap.wrap(
                f"{title}: {reason}: {', '.join(names)}",
                _WIDTH,
                subsequent_indent="    ",
                break_on_hyphens=False,
            )


def explain(judgement: Judgement, evidence: Evidence) -> Iterator[str]:
    """One screen: the claim, estimate and interval of each part, and what to do."""
    claim = judgement.claim
    # The verdict first: pytest's summary cuts this line at the width of the terminal.
    yield f"{headline(judgement)}: claim {claim.id} ({evidence.model})"
    yield from _wrapped(claim.statement())
    if judgement.reason:
        yield from _wrapped(judgement.reason)
    yield from _parts(judgement)
    yield from _origin(claim)
    yield from _what_to_do(judgement, evidence)


def headline(judgement: Judgement) -> str:
    """REFUTED, expected supported."""
    expected = f", expected {judgement.expected.value}" if judgement.expected else ""
    return f"{judgement.verdict.value.upper()}{expected}"


def _expected(judgement: Judgement) -> str:
    if judgement.expected is None:
        return "-"
    if judgement.outcome is Outcome.AS_EXPECTED:
        return judgement.expected.value
    return f"{judgement.expected.value} (!)"


def _summary(judgement: Judgement) -> str:
    """The part that decides, or why none does."""
    found = _by_closeness(judgement)
    agreed = all(part.verdict is Verdict.SUPPORTED for part in found)
    if len(found) < len(judgement.parts) or (agreed and judgement.verdict is not Verdict.SUPPORTED):
        reason = judgement.reason.removesuffix(judgement.elsewhere).removesuffix("; ")
        return textwrap.shorten(reason, _REASON, placeholder=" ...")
    part = found[-1] if judgement.verdict is Verdict.REFUTED else found[0]
    return f"{interval_text(part.interval)} {part.comparison}, n={part.units}"


def _by_closeness(judgement: Judgement) -> list[Part]:
    """Parts with an interval; those that settle the verdict are at the end."""
    found = [part for part in judgement.parts if part.interval is not None]
    return sorted(found, key=lambda part: _distance(judgement, part))


def _distance(judgement: Judgement, part: Part) -> float:
    """How far the interval is inside the claimed region; of a refuted claim, outside it."""
    interval, region = part.interval, judgement.claim.region
    if interval is None:
        return -math.inf
    if judgement.verdict is Verdict.REFUTED:
        return max(region.low - interval.high, interval.low - region.high)
    return min(interval.low - region.low, region.high - interval.high)


def interval_text(interval: Interval | None) -> str:
    """+0.100 [+0.050, +0.150]."""
    if interval is None:
        return "-"
    # Adding zero makes a negative zero positive.
    ends = [number + 0.0 for number in (interval.mean, interval.low, interval.high)]
    large = max(abs(end) for end in ends if math.isfinite(end)) >= _LARGE
    mean, low, high = (f"{end:{'+,.0f' if large else '+.3f'}}" for end in ends)
    return f"{mean} [{low}, {high}]"


def _parts(judgement: Judgement) -> Iterator[str]:
    if not judgement.parts:
        return
    claim = judgement.claim
    yield from _wrapped(
        f"below: {claim.policy} minus {claim.baseline} in {claim.metric}{_SCALES[claim.metric]}; "
        f"90 % intervals; margin {claim.margin:g}"
    )
    chosen = _rows(judgement)
    rows = [
        [
            str(part.comparison),
            interval_text(part.interval),
            part.units or "-",
            part.verdict.value,
            _note(part),
        ]
        for part in chosen
    ]
    headers = ["part", "difference", f"{claim.unit.value}s", "by itself", ""]
    noted = len(headers) if any(map(_note, chosen)) else len(headers) - 1
    table = tabulate([row[:noted] for row in rows], headers=headers[:noted], disable_numparse=True)
    yield from (f"    {line}".rstrip() for line in table.splitlines())
    if len(chosen) < len(judgement.parts):
        yield f"    and {len(judgement.parts) - len(chosen)} parts that matter less"


def _rows(judgement: Judgement) -> Sequence[Part]:
    """All parts; of many, those without an interval and those that are closest."""
    if len(judgement.parts) <= _MOST_ROWS:
        return judgement.parts
    without = [part for part in judgement.parts if part.interval is None]
    with_one = _by_closeness(judgement)
    if judgement.verdict is Verdict.REFUTED:
        with_one.reverse()
    return [*without, *with_one][:_MOST_ROWS]


def _note(part: Part) -> str:
    if part.reason:
        return part.reason
    return "" if part.needed is None else f"about {part.needed} would settle it"


def _origin(claim: Claim) -> Iterator[str]:
    source = f"; source: {claim.source}" if claim.source else ""
    yield from _wrapped(f"stands in {claim.origin}{source}")
    if claim.why:
        yield from _wrapped(f"why this margin: {claim.why}")


def _what_to_do(judgement: Judgement, evidence: Evidence) -> Iterator[str]:
    again = reproduce.judging(judgement.claim, evidence)
    yield f"  judge again, without a model:  {again}"
    yield f"  measure, or what is missing:   {reproduce.measuring(judgement.claim, evidence)}"
    if judgement.outcome is Outcome.DIFFERS:
        yield f"  if the new verdict is right:   {again} --accept"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")
