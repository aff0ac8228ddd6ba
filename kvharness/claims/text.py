"""Verdicts in words: the table at the end of a run, and one screen for each claim."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from tabulate import tabulate

from kvharness.claims.judgement import Outcome
from kvharness.inference.region import Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvharness.claims.claim import Claim
    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement, Part

_WIDTH = 98


def verdicts(judgements: Sequence[Judgement]) -> Iterator[str]:
    """A row for each judged claim, why others were not, and the count of verdicts."""
    judged = [each for each in judgements if each.verdict is not Verdict.NOT_EVALUATED]
    if judged:
        headers = ["claim", "verdict", "expected", "deciding part [90 % interval]"]
        rows = [
            [each.claim.id, each.verdict.value, _expected(each), _summary(each)] for each in judged
        ]
        yield from tabulate(rows, headers=headers, disable_numparse=True).splitlines()
    yield from _not_evaluated(judgements)
    yield count(judgements)


def count(judgements: Sequence[Judgement]) -> str:
    """One line: claims: 9 supported, 2 refuted; 1 differs from what was expected."""
    found = Counter(each.verdict for each in judgements)
    numbers = [f"{found[verdict]} {verdict.value}" for verdict in Verdict if found[verdict]]
    surprises = sum(each.outcome is Outcome.DIFFERS for each in judgements)
    ending = {0: "", 1: "; 1 differs from what was expected"}.get(
        surprises, f"; {surprises} differ from what was expected"
    )
    return f"claims: {', '.join(numbers) or 'none'}{ending}"


def explain(judgement: Judgement, evidence: Evidence) -> Iterator[str]:
    """One screen: the claim, estimate and interval of each part, and what to do."""
    claim = judgement.claim
    expected = f", expected {judgement.expected.value}" if judgement.expected else ""
    yield f"claim {claim.id}: {judgement.verdict.value.upper()}{expected} ({evidence.model})"
    yield from _wrapped(claim.statement())
    if judgement.reason:
        yield from _wrapped(judgement.reason)
    yield from _parts(judgement)
    yield from _origin(claim)
    yield from _what_to_do(judgement, evidence)


def _not_evaluated(judgements: Sequence[Judgement]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for each in judgements:
        if each.verdict is Verdict.NOT_EVALUATED:
            reasons.setdefault(each.reason, []).append(each.claim.id)
    for reason, ids in reasons.items():
        yield from textwrap.wrap(
            f"not evaluated: {reason}: {', '.join(ids)}", _WIDTH, subsequent_indent="    "
        )


def _expected(judgement: Judgement) -> str:
    if judgement.expected is None:
        return "-"
    if judgement.outcome is Outcome.AS_EXPECTED:
        return judgement.expected.value
    return f"{judgement.expected.value} (!)"


def _summary(judgement: Judgement) -> str:
    """The part that decides: the first that is not as the verdict says, else the closest one."""
    found = [part for part in judgement.parts if part.interval is not None]
    if not found:
        return judgement.reason
    part = min(found, key=lambda each: _distance(judgement.claim, each, judgement.verdict))
    return f"{_numbers(part)} {part.comparison}, n={part.units}"


def _distance(claim: Claim, part: Part, verdict: Verdict) -> float:
    """How far the interval's near end is inside the region; for a refuted claim, outside it."""
    interval, region = part.interval, claim.region
    if interval is None:
        return math.inf
    if verdict is Verdict.REFUTED:
        return -max(region.low - interval.high, interval.low - region.high)
    return min(interval.low - region.low, region.high - interval.high)


def _numbers(part: Part) -> str:
    interval = part.interval
    if interval is None:
        return ""
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def _parts(judgement: Judgement) -> Iterator[str]:
    if not judgement.parts:
        return
    rows = [
        [str(part.comparison), _numbers(part), part.units or "-", part.verdict.value, _note(part)]
        for part in judgement.parts
    ]
    claim = judgement.claim
    yield (
        f"  {claim.policy} minus {claim.baseline} in {claim.metric}, positive is better for "
        f"{claim.policy}; margin {claim.margin:g}; 90 % intervals"
    )
    headers = ["part", "difference", f"{claim.unit.value}s", "alone", ""]
    for line in tabulate(rows, headers=headers, disable_numparse=True).splitlines():
        yield f"  {line}".rstrip()


def _note(part: Part) -> str:
    if part.reason:
        return part.reason
    if part.needed is not None:
        return f"about {part.needed} would settle it"
    return ""


def _origin(claim: Claim) -> Iterator[str]:
    source = f"; source: {claim.source}" if claim.source else ""
    yield from _wrapped(f"stands in {claim.origin}{source}")
    if claim.why:
        yield from _wrapped(f"margin: {claim.why}")


def _what_to_do(judgement: Judgement, evidence: Evidence) -> Iterator[str]:
    claim = judgement.claim
    place = evidence.place or "STORE"
    yield f"  judge again, without a model:  kvharness claims {place} --claim {claim.id}"
    yield f"  measure again:                 {command(claim)}"
    if judgement.outcome is Outcome.DIFFERS:
        yield f"  if the new verdict is right:   kvharness claims {place} --accept"


def command(claim: Claim) -> str:
    """The pytest command that measures what a claim compares."""
    settings = "".join(f" --kv-{name}={value}" for name, value in claim.settings.items())
    names = " or ".join(claim.suites)
    return (
        f"pytest suites '--policy={claim.policy},{claim.baseline}' "
        f"--retention={','.join(_retentions(claim))} -k '{names}'{settings}"
    )


def _retentions(claim: Claim) -> list[str]:
    return list(dict.fromkeys([*claim.retentions, *filter(None, [claim.baseline_retention])]))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")


def power_lines(claims: Sequence[Claim], detectable: dict[str, float]) -> Iterator[str]:
    """For each claim the smallest difference that the plan can see, beside its margin."""
    for claim in claims:
        if claim.id not in detectable:
            continue
        smallest = detectable[claim.id]
        short = claim.margin and smallest > claim.margin
        verb = "cannot settle" if short else "can see"
        yield (
            f"  {claim.id}: this run {verb} it; it detects {smallest:.2g}, margin {claim.margin:g}"
            if claim.kind is not Kind.BETTER or claim.margin
            else f"  {claim.id}: this run detects {smallest:.2g} {claim.metric}"
        )
