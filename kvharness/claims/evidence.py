"""Comparable records, and what was planned: the ground on which claims are judged."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Self

from kvharness.claims.claim import Column, Unit
from kvharness.claims.metric import Scale, sign, value
from kvharness.contract import FIXED_ANCHORS, Anchor
from kvharness.items.suites import is_due

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from kvharness.claims.plan import Plan, ReplayPlan
    from kvharness.records.header import Header
    from kvharness.records.record import Record
    from kvharness.records.store import Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The records of one model under one contract.

    Attributes:
        model: its name, as in a claim's ``expect``.
        contract: context, sinks, recents, question and evict.
        records: by suite and column; at most one for each item of a seed.
        plan: the cells of a run or replay. Without one (a store on its own), every policy that
            some run was given should have every cell that a claim asks for, of the suites that
            are due.
        runs: for each policy the largest number of seeds and items that a run was given.
        data: for suites whose items were replaced, by what.
        identities: for each policy, the code and parameters that were run.
        place: where the records lie, for messages.
        options: what else the run was given, by flag, where that is not the default.
        oracles: policies that know the true answers.
    """

    model: str
    contract: Mapping[str, str | int]
    records: Mapping[tuple[str, Column], Sequence[Record]]
    plan: Plan | ReplayPlan | None = None
    runs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    identities: Mapping[str, object] = field(default_factory=dict)
    place: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    oracles: frozenset[str] = frozenset({Anchor.ORACLE.value})

    @classmethod
    def of(
        cls,
        stored: Iterable[Stored],
        *,
        plan: Plan | ReplayPlan | None = None,
        place: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Self:
        """Gather records of one contract and model; of two of one cell and item the last counts.

        ``options`` are those of the newest run unless they are given.

        Raises:
            ValueError: there are none.
        """
        by_cell: dict[tuple[str, Column], dict[tuple[int, str], Record]] = defaultdict(dict)
        headers: dict[str, Header] = {}
        for each in stored:
            record = each.record
            column = Column(record.policy, record.retention)
            by_cell[record.suite, column][record.seed, record.item] = record
            headers[each.header.run] = each.header
        if not headers:
            raise ValueError("there are no records to judge")
        settings = next(reversed(headers.values())).settings
        return cls(
            model=settings["model"]["name"],
            contract=settings["contract"],
            records={
                key: [found[item] for item in sorted(found)] for key, found in by_cell.items()
            },
            plan=plan,
            runs=runs_of(headers.values()),
            data=settings["data"],
            identities=_identities(headers.values()),
            place=place,
            options=settings.get("options", {}) if options is None else options,
            oracles=frozenset[str]().union(*(header.oracles for header in headers.values())),
        )

    def label(self, policy: str) -> str:
        """Its name as tables show it: ``cheat (oracle)``; `Anchor.ORACLE` says so itself."""
        return oracle_label(policy, self.oracles)

    def cells(self, suite: str, column: Column) -> tuple[int, int] | None:
        """How many cells (seeds) are whole and how many should be; None where none was planned."""
        seeds, items = self._planned(suite, column)
        if not seeds:
            return None
        records = self.records.get((suite, column), ())
        count = Counter(record.seed for record in records if record.seed in seeds)
        return sum(found >= items for found in count.values()), len(seeds)

    def _planned(self, suite: str, column: Column) -> tuple[Collection[int], int]:
        if self.plan is not None:
            return self.plan.of(suite, column), self.plan.items
        if not is_due(suite, {name for name, _ in self.records}):
            return (), 0
        seeds, items = self.drawn(column.policy)
        return range(seeds), items

    def drawn(self, policy: str) -> tuple[int, int]:
        """How many seeds and items the runs of a policy were given; 0 where there was none."""
        if self.plan is not None:
            return self.plan.drawn_for(policy), self.plan.items
        return self.runs.get(policy, (0, 0))

    def values(self, suite: str, column: Column, metric: str, unit: Unit) -> dict[str, float] | str:
        """The signed metric of each unit, or why there is none.

        An item that several seeds drew counts once, with its mean: seeds are not samples.
        """
        records = self.records.get((suite, column), ())
        scale = self.scale(suite) if metric == "recovered" else None
        if isinstance(scale, str):
            return scale
        found: dict[str, list[float]] = defaultdict(list)
        for record in records:
            number = value(record, "nll" if scale else metric)
            if number is None:
                return f"{metric} was not measured for {column} on {suite}"
            signed = scale.recovered(number) if scale else sign(metric) * number
            name = record.item_digest if unit is Unit.ITEM else str(record.seed)
            found[name].append(signed)
        return {name: fmean(numbers) for name, numbers in found.items()}

    def scale(self, suite: str) -> Scale | str:
        """The unit of ``recovered`` on a suite, or why there is none."""
        anchors = {
            anchor.value: self.records.get((suite, Column(anchor, None)), ())
            for anchor in FIXED_ANCHORS
        }
        return Scale.of(anchors)

    @property
    def policies(self) -> set[str]:
        return {column.policy for _, column in self.records}


def oracle_label(policy: str, oracles: Collection[str]) -> str:
    """A policy's name, marked if it knows the true answers."""
    marked = policy in oracles and policy != Anchor.ORACLE
    return f"{policy} (oracle)" if marked else policy


def _identities(headers: Iterable[Header]) -> dict[str, object]:
    return {
        policy: identity
        for header in headers
        for policy, identity in header.settings["policies"].items()
    }


def runs_of(headers: Iterable[Header]) -> dict[str, tuple[int, int]]:
    """For each policy the largest number of seeds and items that a run was given."""
    runs: dict[str, tuple[int, int]] = {}
    for header in headers:
        seeds, items = header.settings["seeds"], header.settings["items"]
        for policy in header.settings["policies"]:
            before = runs.get(policy, (0, 0))
            runs[policy] = (max(before[0], seeds), max(before[1], items))
    return runs
