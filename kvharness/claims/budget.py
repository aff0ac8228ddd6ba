"""How far a cache can be compressed: the smallest retention certified not worse than full."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from kvharness.claims.claim import Claim, Column
from kvharness.claims.part import ALPHA, judge_part
from kvharness.contract import Anchor, retention_from_text
from kvharness.discovery.spec import PolicySpec
from kvharness.statistics.multiple import fixed_sequence
from kvharness.statistics.region import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.claims.evidence import Evidence
    from kvharness.claims.part import Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Certification:
    """One retention of the sequence.

    Attributes:
        retention: text.
        parts: of each suite that is asked.
        certified: whether this and every larger retention is not worse than the full cache.
        tested: whether every larger retention was certified, so that this one's turn came.
        saved: share of the full cache's bytes that are saved; None without records.
    """

    retention: str
    parts: tuple[Judged, ...]
    certified: bool
    tested: bool
    saved: float | None


def certifications(
    evidence: Evidence, *, policy: str, suites: Sequence[str], metric: str, margin: float
) -> list[Certification]:
    """Retentions from high to low, each with its verdicts.

    Fixed-sequence testing: a retention is tested only while all larger ones passed, each at the
    full level, which holds the chance of certifying any retention wrongly at that level. Over
    several suites a retention passes when all of them do.
    """
    (spec,) = PolicySpec.parse_list(policy)
    retentions = _retentions(evidence, spec.slug, suites)
    judged = [
        [
            judge_part(claim, comparison, evidence)
            for claim in [_claim(policy, retention, suites, metric=metric, margin=margin)]
            for comparison in claim.comparisons()
        ]
        for retention in retentions
    ]
    passed = fixed_sequence([max(part.p_supported for part in parts) for parts in judged], ALPHA)
    return [
        Certification(
            retention=retention,
            parts=tuple(parts),
            certified=number < passed,
            tested=number <= passed,
            saved=_saved(evidence, spec.slug, retention, suites),
        )
        for number, (retention, parts) in enumerate(zip(retentions, judged, strict=True))
    ]


def smallest(found: Sequence[Certification]) -> Certification | None:
    """The last that is certified."""
    return next((each for each in reversed(found) if each.certified), None)


def _claim(
    policy: str, retention: str, suites: Sequence[str], *, metric: str, margin: float
) -> Claim:
    return Claim(
        id=f"{policy}-at-{retention}",
        kind=Kind.NOT_WORSE,
        policy=policy,
        baseline=Anchor.FULL.value,
        suites=tuple(suites),
        retentions=(retention,),
        metric=metric,
        margin=margin,
    )


def _retentions(evidence: Evidence, policy: str, suites: Sequence[str]) -> list[str]:
    found = {
        column.retention
        for suite, column in evidence.records
        if column.policy == policy and suite in suites and column.retention is not None
    }
    return sorted(found, key=retention_from_text, reverse=True)


def _saved(evidence: Evidence, policy: str, retention: str, suites: Sequence[str]) -> float | None:
    mine = _bytes(evidence, Column.of(policy, retention), suites)
    whole = _bytes(evidence, Column.of(Anchor.FULL.value, retention), suites)
    return None if mine is None or not whole else 1 - mine / whole


def _bytes(evidence: Evidence, column: Column, suites: Sequence[str]) -> float | None:
    found = [
        record.cache_bytes
        for suite in suites
        for record in evidence.records.get((suite, column), ())
    ]
    return fmean(found) if found else None
