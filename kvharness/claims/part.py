"""Judging one comparison of a claim, by paired differences."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.claims.claim import Column, Unit
from kvharness.claims.judgement import Part
from kvharness.contract import FIXED_ANCHORS
from kvharness.statistics.estimate import LEAST_UNITS, Sample
from kvharness.statistics.method import Method
from kvharness.statistics.power import smallest_detectable, units_needed
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kvharness.claims.claim import Claim, Comparison
    from kvharness.claims.evidence import Evidence
    from kvharness.statistics.region import Region


ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A part with its p-values: of being supported and of being refuted by chance.

    ``missing`` says that it has no interval because cells are missing.
    """

    part: Part
    p_supported: float = 1.0
    p_refuted: float = 1.0
    missing: bool = False


def judge_part(claim: Claim, comparison: Comparison, evidence: Evidence) -> Judged:
    """The verdict on one suite and retention, at the level of one test."""
    lacking = missing(needed_cells(claim, comparison), evidence)
    if lacking:
        return Judged(part=_without(comparison, lacking), missing=True)
    sample = _sample(claim, comparison, evidence)
    if isinstance(sample, str):
        return Judged(part=_without(comparison, sample))
    return _judged(claim, comparison, sample)


def needed_cells(claim: Claim, comparison: Comparison) -> list[tuple[str, Column]]:
    """Suites and columns without which the comparison cannot be made."""
    columns = [comparison.policy, comparison.baseline]
    if claim.metric == "recovered":
        columns += [Column(anchor.value, None) for anchor in FIXED_ANCHORS]
    return [(comparison.suite, column) for column in dict.fromkeys(columns)]


def _judged(claim: Claim, comparison: Comparison, sample: Sample) -> Judged:
    region, interval = claim.region, sample.interval(ALPHA)
    verdict, reason = region.verdict(interval), ""
    if not sample.enough:
        verdict, reason = Verdict.INCONCLUSIVE, _too_few(claim, sample)
    undecided = verdict is Verdict.INCONCLUSIVE
    part = Part(
        comparison=comparison,
        verdict=verdict,
        interval=interval,
        units=sample.units,
        sd=sample.sd,
        reason=reason,
        needed=_needed(region, sample) if undecided else None,
        detectable=smallest_detectable(sample.sd, sample.units),
    )
    if not sample.enough:
        return Judged(part=part)
    supported, refuted = p_values(region, sample)
    return Judged(part=part, p_supported=supported, p_refuted=refuted)


def p_values(region: Region, sample: Sample) -> tuple[float, float]:
    """Smallest levels at which the interval lies inside and outside the region."""
    if sample.interval(ALPHA).low == sample.interval(ALPHA).high:
        verdict = region.verdict(sample.interval(ALPHA))
        return float(verdict is not Verdict.SUPPORTED), float(verdict is not Verdict.REFUTED)
    inside = [sample.p_above(region.low)] if math.isfinite(region.low) else []
    inside += [sample.p_below(region.high)] if math.isfinite(region.high) else []
    outside = [sample.p_below(region.low)] if math.isfinite(region.low) else []
    outside += [sample.p_above(region.high)] if math.isfinite(region.high) else []
    return max(inside), min(outside)


def missing(needed: Iterable[tuple[str, Column]], evidence: Evidence) -> str:
    """How many of the cells that there should be are not whole; empty where all are."""
    counts = [evidence.cells(suite, column) or (0, 1) for suite, column in needed]
    whole, planned = (sum(numbers) for numbers in zip(*counts, strict=True))
    return f"{planned - whole} of {planned} cells missing" if whole < planned else ""


def _sample(claim: Claim, comparison: Comparison, evidence: Evidence) -> Sample | str:
    found = []
    for column in (comparison.policy, comparison.baseline):
        values = evidence.values(comparison.suite, column, claim.metric, claim.unit)
        if isinstance(values, str):
            return values
        found.append(values)
    policy, baseline = found
    if policy.keys() != baseline.keys():
        return f"{comparison.policy} and {comparison.baseline} did not answer the same items"
    try:
        return paired(policy, baseline, method=claim.method, seed=_seed(claim, comparison))
    except ValueError as error:
        return str(error)


def _too_few(claim: Claim, sample: Sample) -> str:
    if claim.unit is Unit.SEED:
        return (
            f"{sample.units} seeds are {sample.units} units: an exact test of them cannot go "
            f"below p = {0.5**sample.units:.3g} one-sided; {LEAST_UNITS} units are needed"
        )
    return f"{sample.units} items; fewer than {LEAST_UNITS} settle nothing"


def _needed(region: Region, sample: Sample) -> int | None:
    """Units that would settle it if mean and spread stay; the nearest edge decides."""
    edges = [edge for edge in (region.low, region.high) if math.isfinite(edge)]
    needed = units_needed(sample.sd, min(abs(sample.mean - edge) for edge in edges))
    return needed if needed is None or needed > sample.units else sample.units + 1


def _without(comparison: Comparison, reason: str) -> Part:
    return Part(comparison=comparison, verdict=Verdict.INCONCLUSIVE, reason=reason)


def _seed(claim: Claim, comparison: Comparison) -> int:
    """Of the bootstrap: the same claim on the same data always has the same verdict."""
    text = f"{claim.id} {comparison}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def paired(
    policy: Mapping[str, float],
    baseline: Mapping[str, float],
    *,
    method: Method = Method.AUTO,
    seed: int = 0,
) -> Sample:
    """Policy minus baseline, in the order of the units' names.

    Here it is known what the differences are of: where both sides are nothing but right and wrong
    (1 and 0), AUTO is the exact method, and everywhere else Student's t. Differences that are all
    zero do not tell.

    Raises:
        ValueError: no unit is shared, or the method does not take these differences.
    """
    shared = sorted(policy.keys() & baseline.keys())
    if method is Method.AUTO:
        numbers = [side[unit] for side in (policy, baseline) for unit in shared]
        method = Method.EXACT if all(number in {0, 1} for number in numbers) else Method.T
    return Sample.of([policy[unit] - baseline[unit] for unit in shared], method=method, seed=seed)
