"""From collected tests to the cells and groups of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.cell import Cell
from kvharness.items.suites import SUITES
from kvharness.plugin.names import FIXTURE
from kvharness.plugin.workers import in_shard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pytest

    from kvharness.cell import Group
    from kvharness.run.settings import Settings


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell that a test runs, or None."""
    cell = _params(item).get(FIXTURE)
    return cell if isinstance(cell, Cell) else None


def _params(item: pytest.Item) -> Mapping[str, object]:
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


def grouped(items: Iterable[pytest.Item]) -> dict[Group, list[Cell]]:
    """The cells of tests by group; two tests may look at the same cell, which is computed once."""
    groups: dict[Group, list[Cell]] = {}
    for cell in dict.fromkeys(map(cell_of, items)):
        if cell is not None:
            groups.setdefault(cell.group, []).append(cell)
    return groups


def left_out(items: Iterable[pytest.Item], settings: Settings) -> list[pytest.Item]:
    """Tests of other shards, of the harder suites unless they were asked for, and without a cell.

    A replay makes no cell of a suite that its store does not have.
    """
    items = list(items)
    empty = [item for item in items if FIXTURE in _params(item) and cell_of(item) is None]
    cells = [(item, cell) for item in items if (cell := cell_of(item)) is not None]
    wanted = {cell.group for _, cell in cells if settings.hard or not SUITES[cell.suite].hard}
    mine = {group for group in wanted if in_shard(group, list(wanted), settings.shard)}
    return [*empty, *(item for item, cell in cells if cell.group not in mine)]


def longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Groups of the longest work first: what one worker does alone at the end is then short.

    The default run is 15 groups; in the order of files its last group, of 4 minutes, left a
    worker idle.
    """
    cells = [(item, cell_of(item)) for item in items]
    return [
        item
        for item, _ in sorted(
            cells, key=lambda pair: 0.0 if pair[1] is None else -SUITES[pair[1].suite].work
        )
    ]
