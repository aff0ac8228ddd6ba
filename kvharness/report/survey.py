"""What a report is about: its suites, policies and retentions, and the numbers of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from kvharness.cell import anchors_first
from kvharness.claims.claim import Column, Unit
from kvharness.claims.metric import sign
from kvharness.contract import Anchor, retention_from_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kvharness.claims.evidence import Evidence
    from kvharness.records.record import Record

#: The scope that joins the items of all suites; each item counts once.
ALL = "all suites"
#: The baseline of chance: it keeps the same number of tokens, drawn at random.
CHANCE = "random"
#: What policies are compared in, the one that means the same on every suite first.
COMPARED = ("recovered", "score")
_NUMBERS = (*COMPARED, "nll", "evidence_kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The axes of the evidence, in the order in which a report shows them.

    Attributes:
        evidence: the records.
        suites: by name.
        policies: anchors first, then by name.
        retentions: from small to large, as text.
        numbers: by suite and metric, then by column and item; `nll` is positive here.
        lacking: for each suite without `recovered`, why.
    """

    evidence: Evidence
    suites: tuple[str, ...]
    policies: tuple[str, ...]
    retentions: tuple[str, ...]
    numbers: Mapping[tuple[str, str], Mapping[Column, Mapping[str, float]]]
    lacking: Mapping[str, str]

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        """Read all numbers once."""
        suites = tuple(sorted({suite for suite, _ in evidence.records}))
        columns = {column for _, column in evidence.records}
        retentions = {column.retention for column in columns if column.retention is not None}
        scales = {suite: evidence.scale(suite) for suite in suites}
        return cls(
            evidence=evidence,
            suites=suites,
            policies=tuple(sorted({column.policy for column in columns}, key=anchors_first)),
            retentions=tuple(sorted(retentions, key=retention_from_text)),
            numbers={
                (suite, metric): _numbers(evidence, suite, metric)
                for suite in suites
                for metric in _NUMBERS
            },
            lacking={suite: text for suite, text in scales.items() if isinstance(text, str)},
        )

    @property
    def scopes(self) -> tuple[str, ...]:
        """Each suite, and all together where there are several."""
        return (ALL, *self.suites) if len(self.suites) > 1 else self.suites

    @property
    def metrics(self) -> tuple[str, ...]:
        """What policies can be compared in on some suite."""
        return tuple(metric for metric in COMPARED if any(self.parts(ALL, metric)))

    @property
    def contenders(self) -> tuple[str, ...]:
        """All policies but the anchors and those that know the true answers."""
        apart = {*Anchor, *self.evidence.oracles}
        return tuple(policy for policy in self.policies if policy not in apart)

    def label(self, policy: str) -> str:
        """A policy's name as it is shown."""
        return self.evidence.label(policy)

    def parts(self, scope: str, metric: str) -> tuple[str, ...]:
        """The suites of a scope on which a metric was measured."""
        suites = self.suites if scope == ALL else (scope,)
        return tuple(suite for suite in suites if self.numbers.get((suite, metric)))

    def values(self, scope: str, policy: str, retention: str, metric: str) -> dict[str, float]:
        """The metric of each item; empty where nothing was measured.

        `full` and `floor` have the same values at every retention.
        """
        column = Column.of(policy, retention)
        return {
            f"{suite}/{item}": number
            for suite in self.parts(scope, metric)
            for item, number in self.numbers[suite, metric].get(column, {}).items()
        }

    def over_retentions(self, scope: str, policy: str, metric: str) -> dict[str, float]:
        """The mean over all shared retentions of each item that has them all."""
        found = [self.values(scope, policy, each, metric) for each in self.shared_retentions]
        items = set.intersection(*map(set, found)) if found else set()
        return {item: sum(each[item] for each in found) / len(found) for item in sorted(items)}

    @property
    def shared_retentions(self) -> tuple[str, ...]:
        """Those at which every policy but the anchors was run.

        A policy that was run at less than half as many as others, since a claim asks for it at one
        retention, does not count.
        """
        runs = {policy: self._retentions(policy) for policy in self.contenders}
        most = max((len(found) for found in runs.values()), default=0)
        wide = [found for found in runs.values() if 2 * len(found) > most]
        return tuple(each for each in self.retentions if all(each in found for found in wide))

    def _retentions(self, policy: str) -> set[str]:
        columns = {column for _, column in self.evidence.records if column.policy == policy}
        return {column.retention for column in columns if column.retention is not None}

    def records(self, policy: str, retention: str) -> Sequence[Record]:
        """Of all suites."""
        column = Column.of(policy, retention)
        return [
            record
            for suite in self.suites
            for record in self.evidence.records.get((suite, column), ())
        ]

    def all_records(self) -> Iterator[Record]:
        for records in self.evidence.records.values():
            yield from records

    def score_name(self, suite: str) -> str:
        """What a suite's score is, such as ``exact``."""
        return next(r.score_name for r in self.all_records() if r.suite == suite)

    def items(self, scope: str) -> int:
        """How many different items there are."""
        found = {(record.suite, record.item_digest) for record in self.all_records()}
        return sum(scope in {ALL, suite} for suite, _ in found)

    def answered(self, scope: str, metric: str) -> str:
        """The suites of a scope with that metric, and how many items they have."""
        parts = self.parts(scope, metric)
        items = sum(self.items(suite) for suite in parts)
        return f"{items:,} {'item' if items == 1 else 'items'} of {', '.join(parts)}"


def _numbers(evidence: Evidence, suite: str, metric: str) -> dict[Column, dict[str, float]]:
    found = {}
    for other, column in evidence.records:
        if other == suite:
            values = evidence.values(suite, column, metric, Unit.ITEM)
            if isinstance(values, dict):
                found[column] = {item: sign(metric) * number for item, number in values.items()}
    return found
