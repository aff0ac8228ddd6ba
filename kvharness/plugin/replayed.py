"""A run that reports from the records of a store, without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.errors import UsageProblem
from kvharness.plugin.claims_gate import Gate
from kvharness.plugin.record_source import RecordSource, described
from kvharness.plugin.replay import Replay
from kvharness.plugin.result import CellResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kvharness.cell import Cell, Group
    from kvharness.claims.plan import ReplayPlan
    from kvharness.errors import PolicyProblem
    from kvharness.plugin.record_source import Cells
    from kvharness.run.outcome import Tally
    from kvharness.run.settings import Settings


class Replayed(RecordSource):
    """The records of a store that the settings select; nothing is run.

    Args:
        directory: of the store.
        settings: of the run.

    Raises:
        KvharnessError: there are no such records, or a setting makes no sense for a replay.
    """

    def __init__(self, directory: Path, settings: Settings) -> None:
        if settings.data:
            suite, source = settings.data[0]
            raise UsageProblem(
                f"--kv-data {suite}={source}: a replay has the items of its store; leave it out, "
                f"or run without --kv-replay"
            )
        self.directory = directory
        self.gate = Gate.of(settings, None)
        self._settings = settings
        beside = [spec.slug for spec in self.gate.wanted.policies]
        self._replay = Replay.read(directory, settings, beside)

    def cells(self, suite: str) -> list[Cell]:
        return self._replay.cells(suite)

    def title(self, cells: Cells) -> list[str]:
        replay = self._replay
        if not cells:
            there = ", ".join(replay.suites)
            told = f"{self.directory} has records of {there}, of which no test was collected"
            return [f"kvharness: {told}; name their files, and see -k"]
        line = described(
            cells,
            items=replay.items,
            model=replay.model,
            contract=replay.contract,
            place=f"replay of {self.directory}",
        )
        return [line, *(f"kvharness: {each}" for each in replay.warnings)]

    def outlook(self, cells: Cells) -> list[str]:  # noqa: ARG002
        """Nothing is run, and what the records show stands at the end."""
        return []

    def check(self, cells: Cells) -> None:
        """The records were read when it was made."""

    def check_items(self, cells: Cells) -> None:
        """The items were asked when they were recorded."""

    def ensure(self, group: Group, cells: Sequence[Cell]) -> None:
        """The records are there."""

    def failure(self, cell: Cell) -> str:  # noqa: ARG002
        """Cells that failed have no records, so there are none of them."""
        return ""

    def lack(self, cell: Cell) -> str:  # noqa: ARG002
        """As for `failure`."""
        return ""

    def result(self, cell: Cell) -> CellResult:
        return CellResult(
            cell=cell,
            contract=self._replay.contract,
            records=tuple(self._replay.records(cell)),
            expected=self._replay.items,
        )

    def tallies(self, cell: Cell) -> list[Tally]:  # noqa: ARG002
        """Nothing was done."""
        return []

    def close(self) -> None:
        """Nothing is held open."""

    def load(self) -> None:
        """No policy runs."""

    @property
    def problems(self) -> list[PolicyProblem]:
        return []

    def plan(self, cells: Cells) -> ReplayPlan:
        chosen = {cell for group in cells.values() for cell in group}
        return self._replay.plan(chosen, self._settings)

    @property
    def options(self) -> Mapping[str, str]:
        return self._replay.options
