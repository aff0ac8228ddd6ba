"""Where the records of a run come from: one face for runs that compute and runs that replay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from kvharness.contract import EvictMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kvharness.cell import Cell, Group
    from kvharness.claims.plan import Plan, ReplayPlan
    from kvharness.contract import Contract
    from kvharness.errors import PolicyProblem
    from kvharness.plugin.claims_gate import Gate
    from kvharness.plugin.result import CellResult
    from kvharness.run.outcome import Tally

    Cells = Mapping[Group, Sequence[Cell]]


class RecordSource(ABC):
    """What a pytest process asks for the cells of a suite, their records, and what claims need.

    Attributes:
        gate: the claims that are judged at the end.
        directory: of the store that has the records in the end.
    """

    gate: Gate
    directory: Path

    # -- before tests run -------------------------------------------------------------------------

    @abstractmethod
    def cells(self, suite: str) -> list[Cell]:
        """The cells of a suite, in the order of a run."""

    @abstractmethod
    def title(self, cells: Cells) -> list[str]:
        """Lines that say what was collected, from where."""

    @abstractmethod
    def outlook(self, cells: Cells) -> list[str]:
        """Lines that say what each claim will be able to show."""

    @abstractmethod
    def check(self, cells: Cells) -> None:
        """Refuse what cannot work.

        Raises:
            KvharnessError: says what is wrong.
        """

    @abstractmethod
    def check_items(self, cells: Cells) -> None:
        """Refuse items that cannot be asked, as soon as a controller knows the cells.

        Raises:
            KvharnessError: says what is wrong.
        """

    # -- while they run ---------------------------------------------------------------------------

    @abstractmethod
    def ensure(self, group: Group, cells: Sequence[Cell]) -> None:
        """Have the records of a group."""

    @abstractmethod
    def failure(self, cell: Cell) -> str:
        """Why a cell has no result; empty if it has one."""

    @abstractmethod
    def lack(self, cell: Cell) -> str:
        """Why a cell, which nobody asked for by name, was not run; empty if it was."""

    @abstractmethod
    def result(self, cell: Cell) -> CellResult:
        """What a cell did on all its items."""

    @abstractmethod
    def tallies(self, cell: Cell) -> list[Tally]:
        """What was done for its group."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the store."""

    # -- afterwards -------------------------------------------------------------------------------

    @abstractmethod
    def load(self) -> None:
        """Import the policies; those that are broken are `problems` from then on."""

    @property
    @abstractmethod
    def problems(self) -> list[PolicyProblem]:
        """Of policies that do not load, so that they have no cells."""

    @abstractmethod
    def plan(self, cells: Cells) -> Plan | ReplayPlan:
        """The records that claims may expect, where these cells were selected."""

    @property
    @abstractmethod
    def options(self) -> Mapping[str, str]:
        """How its answers were computed, by flag, as far as that is no default."""


def described(cells: Cells, *, items: int, model: str, contract: Contract, place: str) -> str:
    """One line: how many cells, and of what."""
    count = sum(map(len, cells.values()))
    evict = "" if contract.evict is EvictMode.PREFILL else f", evict {contract.evict.value}"
    return (
        f"kvharness: {count} cells in {len(cells)} groups of {items} items; {model}, "
        f"context {contract.context}, question {contract.question.value}{evict}; {place}"
    )
