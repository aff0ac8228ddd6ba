"""The cells that xdist workers collected, read from their test ids: a controller collects none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kvharness.cell import Cell, Group
from kvharness.contract import retention_from_text
from kvharness.items.suites import SUITES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CELL = re.compile(
    r"(?P<test>.*)\[(?P<policy>[^\[\]]+?)(-r(?P<retention>\d+(\.\d+|_[1-9]\d*)?))?-s(?P<seed>\d+)\]"
)


def cells_of_ids(ids: Iterable[str], suites: Mapping[str, str]) -> dict[Group, list[Cell]]:
    """Cells by group.

    Args:
        ids: of tests, as ``suites/test_qa.py::test_qa[snapkv-r0.25-s1]``.
        suites: the suite of a test function, as far as its reports have told; the others go by
            their names: ``test_qa_records`` is of ``qa-records``.
    """
    found: dict[Group, list[Cell]] = {}
    for nodeid in ids:
        match = _CELL.fullmatch(nodeid)
        suite = suites.get(match["test"]) or _by_name(match["test"]) if match else None
        if match is None or suite is None:
            continue
        cell = Cell(
            suite=suite,
            policy=match["policy"],
            retention=retention_from_text(match["retention"]) if match["retention"] else None,
            seed=int(match["seed"]),
        )
        found.setdefault(cell.group, []).append(cell)
    return found


def test_of(nodeid: str) -> str:
    """The test function of an id."""
    match = _CELL.fullmatch(nodeid)
    return match["test"] if match else nodeid


def _by_name(test: str) -> str | None:
    name = test.rpartition("::")[2].removeprefix("test_").replace("_", "-")
    return name if name in SUITES else None
