"""Reading a store in place of running: the same cells, results and tables, without a model."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvharness.cell import Cell, anchors_first
from kvharness.claims.claim import Column
from kvharness.claims.evidence import runs_of
from kvharness.claims.plan import ReplayPlan
from kvharness.contract import Anchor, retention_from_text, retention_text
from kvharness.errors import StoreProblem
from kvharness.records.comparable import comparable
from kvharness.run.settings import contract_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kvharness.contract import Contract
    from kvharness.records.record import Record
    from kvharness.records.store import Stored
    from kvharness.run.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The records of one contract, model and engine in a store: the newest there are.

    Attributes:
        contract, model: their own.
        items: that each seed was to have.
        runs: for each policy the seeds that it was given, as far as the options select them.
        by_cell: in the order of the items' names.
        options: what the newest run was given, by flag.
        warnings: what of the store could not be read.
    """

    contract: Contract
    model: str
    items: int
    runs: dict[str, int]
    by_cell: dict[Cell, list[Record]]
    options: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, directory: Path, settings: Settings, beside: Iterable[str] = ()) -> Replay:
        """Read a store and keep what the options select.

        Args:
            directory: of the store.
            settings: of the replay.
            beside: slugs of policies to keep as well, where they are there.

        Raises:
            StoreProblem: there are no records, or none of a policy, a retention or the seeds that
                the options select.
        """
        warnings: list[str] = []
        stored, newest, _ = comparable(directory, demanded=settings.demanded, say=warnings.append)
        runs = runs_of({each.header.run: each.header for each in stored}.values())
        stored = _at_retentions(_of_policies(stored, settings, beside), settings)
        cells: dict[Cell, dict[str, Stored]] = defaultdict(dict)
        for each in _of_seeds(stored, settings):
            cells[_cell(each.record)][each.record.item] = each
        records = {
            cell: [items[name].record for name in sorted(items)] for cell, items in cells.items()
        }
        most = settings.seeds if settings.seeds_given else sys.maxsize
        return cls(
            contract=contract_of(newest.settings["contract"]),
            model=newest.settings["model"]["name"],
            items=newest.settings["items"],
            runs={policy: min(seeds, most) for policy, (seeds, _) in runs.items()},
            by_cell=records,
            options=newest.settings.get("options", {}),
            warnings=tuple(warnings),
        )

    @property
    def suites(self) -> list[str]:
        """That there are records of, in the order of the store."""
        return list(dict.fromkeys(cell.suite for cell in self.by_cell))

    def cells(self, suite: str) -> list[Cell]:
        """In the order of a run: seed by seed, anchors first."""
        found = [cell for cell in self.by_cell if cell.suite == suite]
        return sorted(found, key=lambda c: (c.seed, anchors_first(c.policy), c.retention or 0))

    def records(self, cell: Cell) -> list[Record]:
        return self.by_cell.get(cell, [])

    def plan(self, chosen: Iterable[Cell], settings: Settings) -> ReplayPlan:
        """What should be there of the ``chosen`` cells and of those that are lost."""
        cells = set(chosen)
        retentions = {retention_text(each) for each in settings.retentions}
        return ReplayPlan(
            items=self.items,
            suites=self.suites,
            drawn=self.runs,
            retentions=retentions if settings.retentions_given else None,
            chosen={
                place: {cell.seed for cell in cells if _place(cell) == place}
                for place in {_place(cell) for cell in self.by_cell.keys() - cells}
            },
        )


def _of_policies(stored: list[Stored], settings: Settings, beside: Iterable[str]) -> list[Stored]:
    """The policies that were given, with those beside them, or all; the anchors always."""
    slugs = set(settings.named)
    there = {each.record.policy for each in stored}
    missing = ", ".join(sorted(slugs - there))
    if missing:
        raise _nothing(settings, f"of {missing}", sorted(there, key=anchors_first))
    chosen = {*slugs, *beside, *Anchor}
    return [each for each in stored if not slugs or each.record.policy in chosen]


def _at_retentions(stored: list[Stored], settings: Settings) -> list[Stored]:
    """The retentions that were given, or all; `full` and `floor` have none."""
    if not settings.retentions_given:
        return stored
    there = {retention for each in stored if (retention := _cell(each.record).retention)}
    missing = ", ".join(map(retention_text, sorted({*settings.retentions} - there)))
    if missing:
        found = [retention_text(each) for each in sorted(there)]
        raise _nothing(settings, f"at --retention {missing}", found)
    chosen = {None, *settings.retentions}
    return [each for each in stored if _cell(each.record).retention in chosen]


def _of_seeds(stored: list[Stored], settings: Settings) -> list[Stored]:
    """The first seeds, as many as were given, or all."""
    if not settings.seeds_given:
        return stored
    chosen = [each for each in stored if each.record.seed < settings.seeds]
    if not chosen:
        there = sorted({each.record.seed for each in stored})
        wanted = f"of a seed below --kv-seeds {settings.seeds}"
        raise _nothing(settings, wanted, [str(seed) for seed in there])
    return chosen


def _nothing(settings: Settings, wanted: str, there: list[str]) -> StoreProblem:
    return StoreProblem(
        f"--kv-replay {settings.replay}: no record is {wanted}; there are {', '.join(there)}"
    )


def _cell(record: Record) -> Cell:
    retention = None if record.retention is None else retention_from_text(record.retention)
    return Cell(suite=record.suite, policy=record.policy, retention=retention, seed=record.seed)


def _place(cell: Cell) -> tuple[str, Column]:
    return cell.suite, Column(cell.policy, cell.retention_text)
