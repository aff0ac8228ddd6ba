"""A claim: where the mean paired difference between two policies lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from kvharness.contract import FIXED_ANCHORS, EvictMode
from kvharness.discovery.spec import PolicySpec
from kvharness.statistics.method import Method
from kvharness.statistics.region import Kind, Region, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping


class Unit(StrEnum):
    """What is drawn anew: the item, or a whole seed with its training run."""

    ITEM = "item"
    SEED = "seed"


@dataclass(frozen=True, slots=True)
class Column:
    """A policy at a retention; ``retention`` is None for `full` and `floor`."""

    policy: str
    retention: str | None

    @classmethod
    def of(cls, policy: str, retention: str) -> Column:
        return cls(policy, None if policy in FIXED_ANCHORS else retention)

    def __str__(self) -> str:
        return self.policy if self.retention is None else f"{self.policy}-r{self.retention}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One part of a claim: a suite and the two columns that are compared on it."""

    suite: str
    policy: Column
    baseline: Column

    def __str__(self) -> str:
        retention = self.policy.retention or self.baseline.retention
        return self.suite if retention is None else f"{self.suite} at {retention}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The record of a ``[[claim]]`` table; see the README for each key.

    Attributes:
        id: unique among all claims of a run.
        kind, margin: the region that the mean difference is claimed to lie in.
        policy, baseline: as in ``--policy``; the difference is policy minus baseline, with its
            sign changed for metrics where less is better.
        suites, retentions: every pair of them is a part, and the claim holds for all parts.
        metric: a metric of records, ``score`` (the suite's own), ``recovered``,
            ``evidence_kept`` or ``bytes``.
        unit: what the interval is over.
        method: how the interval is made.
        baseline_retention: the baseline's, where it differs from the policy's.
        control: id of the positive control: a difference that must be seen before seeing none
            means anything.
        family: claims of one family are corrected together (Holm).
        settings: contract under which the expectation was established.
        expect: verdict by model name.
        source, why: where it was published, and what explains the margin.
        on_request: a run measures it only where its policy, or every policy, is named.
        origin, table: file that the claim stands in, and which ``[[claim]]`` there, from 1.
    """

    id: str
    kind: Kind
    policy: str
    baseline: str
    suites: tuple[str, ...]
    retentions: tuple[str, ...]
    metric: str
    margin: float = 0.0
    unit: Unit = Unit.ITEM
    method: Method = Method.AUTO
    baseline_retention: str | None = None
    control: str | None = None
    family: str | None = None
    settings: Mapping[str, str | int] = field(default_factory=dict)
    expect: Mapping[str, Verdict] = field(default_factory=dict)
    source: str = ""
    why: str = ""
    on_request: bool = False
    origin: str = ""
    table: int = 1

    @property
    def region(self) -> Region:
        return Region.of(self.kind, self.margin)

    @property
    def policies(self) -> tuple[PolicySpec, PolicySpec]:
        (policy,), (baseline,) = map(PolicySpec.parse_list, (self.policy, self.baseline))
        return policy, baseline

    @property
    def evict(self) -> str:
        """When policies evict in what it is about; elsewhere they are other policies."""
        return str(self.settings.get("evict", EvictMode.PREFILL.value))

    def comparisons(self) -> list[Comparison]:
        """Its parts, suite by suite; `full` against `floor` is one at all retentions."""
        policy, baseline = (spec.slug for spec in self.policies)
        parts = (
            Comparison(
                suite,
                Column.of(policy, retention),
                Column.of(baseline, self.baseline_retention or retention),
            )
            for suite in self.suites
            for retention in self.retentions
        )
        return list(dict.fromkeys(parts))

    def statement(self) -> str:
        """The claim in words: "snapkv is better than random by more than 0.1 recovered"."""
        by = f" by more than {self.margin:g}" if self.margin else ""
        words = {
            Kind.BETTER: f"is better than {self.baseline}{by}",
            Kind.NOT_BETTER: f"is not better than {self.baseline}{by}",
            Kind.NOT_WORSE: f"is not worse than {self.baseline}{by}",
            Kind.EQUIVALENT: f"equals {self.baseline} within {self.margin:g}",
        }
        at = f" kept at {self.baseline_retention}" if self.baseline_retention else ""
        return f"{self.policy} {words[self.kind]}{at}, in {self.metric}"
