"""A run that computes what its store lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kvharness.cell import cells_of
from kvharness.claims.evidence import Evidence
from kvharness.claims.plan import plan_of
from kvharness.contract import EvictMode
from kvharness.errors import StoreProblem
from kvharness.plugin.claims_gate import Gate
from kvharness.plugin.groups import Work
from kvharness.plugin.record_source import RecordSource, described
from kvharness.plugin.result import CellResult
from kvharness.plugin.workers import pin_worker
from kvharness.records.comparable import EVICT, comparable
from kvharness.run.outcome import Tally
from kvharness.run.policies import Lineup
from kvharness.run.preflight import check_presence
from kvharness.run.settings import contract_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from kvharness.cell import Cell, Group
    from kvharness.claims.plan import Plan
    from kvharness.errors import PolicyProblem
    from kvharness.plugin.record_source import Cells
    from kvharness.plugin.screen import Screen
    from kvharness.run.settings import Settings


class Computed(RecordSource):
    """Policies that are installed, run on a model; the store has what was computed before.

    Args:
        config: pytest's.
        settings: of the run.
        screen: for what is to be said.

    Raises:
        KvharnessError: a setting makes no sense, or names what is not there.
    """

    def __init__(self, config: pytest.Config, settings: Settings, screen: Screen) -> None:
        settings.check_budgets()
        check_presence(settings)
        self._config = config
        self._settings = settings
        self._lineup = Lineup.of(settings.policies, settings.evict)
        self.directory = settings.store
        self.gate = Gate.of(settings, self._lineup.known)
        self.gate.check(self._lineup.known)
        self._lineup.add(self.gate.wanted.policies)
        self._work = Work(config, settings, self._lineup.policies, screen)

    def cells(self, suite: str) -> list[Cell]:
        self.load()
        chosen = {
            slug: self.gate.retentions(slug, self._settings.retentions)
            for slug in self._lineup.slugs
        }
        return list(cells_of(suite, retentions=chosen, seeds=self._settings.seeds))

    def title(self, cells: Cells) -> list[str]:
        settings = self._settings
        line = described(
            cells,
            items=settings.items,
            model=settings.model,
            contract=settings.contract,
            place=f"store {settings.store}",
        )
        return [line] if cells else []

    def outlook(self, cells: Cells) -> list[str]:
        return self.gate.outlook(self.plan(cells), self._recorded())

    def _recorded(self) -> Evidence | None:
        """Earlier records of this model and contract, which tell the spread of differences."""
        try:
            mode = {EVICT: self._settings.evict.value}
            stored, *_ = comparable(self.directory, demanded=mode)
        except StoreProblem:
            return None
        evidence = Evidence.of(stored)
        names = {self._settings.model, Path(self._settings.model).name}
        same = contract_of(evidence.contract) == self._settings.contract
        return evidence if same and evidence.model in names else None

    def check(self, cells: Cells) -> None:
        self.load()
        self._lineup.check_parameters()
        self._work.runner.check(cells)

    def check_items(self, cells: Cells) -> None:
        self._work.runner.supply.check(cells)

    def ensure(self, group: Group, cells: Sequence[Cell]) -> None:
        self._work.ensure(group, cells)

    def failure(self, cell: Cell) -> str:
        return self._work.outcome(cell.group).failure(cell)

    def lack(self, cell: Cell) -> str:
        return self._work.outcome(cell.group).untrained.get(cell.name, "")

    def result(self, cell: Cell) -> CellResult:
        outcome = self._work.outcome(cell.group)
        return CellResult(
            cell=cell,
            contract=self._settings.contract,
            records=() if outcome.failure(cell) else tuple(outcome.records[cell.name]),
            expected=outcome.items,
        )

    def tallies(self, cell: Cell) -> list[Tally]:
        return [Tally.of(cell.group, self._work.outcome(cell.group))]

    def close(self) -> None:
        self._work.close()

    def load(self) -> None:
        """Import the policies, unless only names are wanted: that needs no torch.

        Which policies evict on the way, they say themselves.
        """
        names = bool(self._config.getoption("collectonly", default=False))
        if not names or self._settings.evict is not EvictMode.PREFILL:
            pin_worker(self._config)
            self._lineup.load()

    @property
    def problems(self) -> list[PolicyProblem]:
        return list(self._lineup.broken.values())

    def plan(self, cells: Cells) -> Plan:
        return plan_of(cells, items=self._settings.items, seeds=self._settings.seeds)

    @property
    def options(self) -> dict[str, str]:
        return self._settings.options()
