"""Reading a store in place of running: the same cells, results and tables, without a model."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.cell import Cell, Group, anchors_first
from kvharness.contract import (
    Anchor,
    Contract,
    EvictMode,
    Protection,
    QuestionMode,
    retention_from_text,
)
from kvharness.errors import StoreProblem
from kvharness.spec import PolicySpec
from kvharness.store import Store

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from kvharness.provenance import Header
    from kvharness.record import Record
    from kvharness.settings import Settings
    from kvharness.store import Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The records of one contract, model and engine in a store: the newest there are."""

    contract: Contract
    by_cell: dict[Cell, list[Record]]

    @classmethod
    def read(cls, directory: Path, settings: Settings) -> Replay:
        """Read a store and keep what the options select.

        Raises:
            StoreProblem: there are no records, or none of a policy that the options select.
        """
        stored, newest, _ = comparable(directory)
        slugs = {s.slug for text in settings.policies for s in PolicySpec.parse_list(text)}
        there = {each.record.policy for each in stored}
        if slugs - there:
            raise StoreProblem(
                f"--kv-replay {directory}: no record is of {', '.join(sorted(slugs - there))}; "
                f"there are {', '.join(sorted(there, key=anchors_first))}"
            )
        cells: dict[Cell, dict[str, Stored]] = defaultdict(dict)
        for each in stored:
            if not slugs or each.record.policy in slugs | set(Anchor):
                cells[_cell(each.record)][each.record.item] = each
        records = {
            cell: [items[name].record for name in sorted(items)] for cell, items in cells.items()
        }
        return cls(contract=_contract(newest.settings.get("contract")), by_cell=records)

    def cells(self, suite: str) -> list[Cell]:
        """In the order of a run: seed by seed, anchors first."""
        found = [cell for cell in self.by_cell if cell.suite == suite]
        return sorted(found, key=lambda c: (c.seed, anchors_first(c.policy), c.retention or 0))

    def records(self, cell: Cell) -> list[Record]:
        return self.by_cell.get(cell, [])

    def items(self, group: Group) -> int:
        """How many items the fullest cell of a group has."""
        return max((len(r) for c, r in self.by_cell.items() if c.group == group), default=0)


def newest_records(directory: Path) -> tuple[list[Record], list[Header], int]:
    """Records of the newest settings in a store, their headers, and how many are left out.

    Raises:
        StoreProblem: there is no record to show.
    """
    stored, _, left_out = comparable(directory)
    latest = {(_cell(each.record), each.record.item): each for each in stored}
    headers = {each.header.run: each.header for each in latest.values()}
    return [each.record for each in latest.values()], list(headers.values()), left_out


def comparable(directory: Path) -> tuple[list[Stored], Header, int]:
    """What was stored under the newest settings by the newest policies, oldest first.

    Returns:
        the records, the newest header, and how many records of other settings there are.

    Raises:
        StoreProblem: there are none.
    """
    everything = list(Store.read(directory).by_key.values())
    if not everything:
        raise StoreProblem(
            f"{directory}: there are no records in this folder; expected what --kv-store wrote"
        )
    everything.sort(key=lambda each: each.header.created)
    newest = everything[-1].header
    shared = _shared(newest.settings)
    comparable = [each for each in everything if _shared(each.header.settings) == shared]
    policies = {each.record.policy: _version(each) for each in comparable}
    stored = [each for each in comparable if _version(each) == policies[each.record.policy]]
    return stored, newest, len(everything) - len(stored)


def _cell(record: Record) -> Cell:
    retention = None if record.retention is None else retention_from_text(record.retention)
    return Cell(suite=record.suite, policy=record.policy, retention=retention, seed=record.seed)


def _version(stored: Stored) -> object:
    """The code and parameters of the policy that a record is of."""
    return stored.header.settings.get("policies", {}).get(stored.record.policy)


def _shared(settings: dict[str, Any]) -> str:
    # The number of items is among them, since it changes how the items of a seed are drawn.
    names = ("engine", "torch", "transformers", "model", "contract", "generate", "data", "items")
    return json.dumps([settings.get(name) for name in names], sort_keys=True, default=str)


def _contract(given: object) -> Contract:
    try:
        return Contract(
            context=int(given["context"]),  # type: ignore[index]
            protection=Protection(sinks=int(given["sinks"]), recents=int(given["recents"])),  # type: ignore[index]
            question=QuestionMode(given["question"]),  # type: ignore[index]
            evict=EvictMode(given["evict"]),  # type: ignore[index]
        )
    except (TypeError, KeyError, ValueError):
        raise StoreProblem("the store's header has no readable contract") from None
