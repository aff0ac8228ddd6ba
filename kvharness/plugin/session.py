"""The state of a benchmark run inside pytest; registered only when a run has cells."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.cell import cells_of
from kvharness.contract import EvictMode
from kvharness.errors import KvharnessError, PolicyProblem
from kvharness.items.suites import SUITES
from kvharness.plugin.cell_ids import cells_of_ids
from kvharness.plugin.claims_gate import Gate, status
from kvharness.plugin.claims_session import Judging
from kvharness.plugin.collection import cell_of, grouped, left_out, longest_first
from kvharness.plugin.groups import Work
from kvharness.plugin.names import PROPERTY
from kvharness.plugin.replay import Replay
from kvharness.plugin.result import CellResult
from kvharness.plugin.screen import Screen, tables
from kvharness.plugin.workers import pin_worker
from kvharness.run.outcome import Tallies, Tally
from kvharness.run.policies import Lineup
from kvharness.run.preflight import check_presence
from kvharness.run.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from kvharness.cell import Cell, Group
    from kvharness.contract import Contract


class Bench:
    """Collects cells, computes groups when their first cell comes up, and reports.

    Args:
        config: pytest's.

    Raises:
        KvharnessError: an option makes no sense, or names what is not there.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings = Settings.of(config)
        directory = self.settings.replay
        if directory is None:
            check_presence(self.settings)
        self.lineup = (
            Lineup([], {})
            if directory
            else Lineup.of(self.settings.policies, self.settings.contract.evict)
        )
        self.gate = Gate.of(self.settings, None if directory else self.lineup.known)
        self.replay: Replay | None = None
        if directory is None:
            self.gate.check(self.lineup.known)
            self.lineup.add(self.gate.wanted.policies)
        else:
            beside = [spec.slug for spec in self.gate.wanted.policies]
            self.replay = Replay.read(directory, self.settings, beside)
        self.judging = Judging(self.gate, self.settings, self.replay)
        self.screen = Screen(config)
        self.work = Work(config, self.settings, self.lineup.policies, self.screen)
        self.cells: dict[Group, list[Cell]] = {}
        self._keys: set[str] = set()
        self._tallies = Tallies()

    @property
    def is_worker(self) -> bool:
        return hasattr(self.config, "workerinput")

    @property
    def collect_only(self) -> bool:
        return bool(self.config.getoption("collectonly", default=False))

    def cells_for(self, metafunc: pytest.Metafunc) -> list[Cell]:
        """The cells of the suite that a test function is marked with."""
        marker = metafunc.definition.get_closest_marker("kv_suite")
        name = str(marker.args[0]) if marker and marker.args else ""
        if name not in SUITES:
            listed = ", ".join(SUITES)
            raise pytest.UsageError(
                f"{metafunc.definition.nodeid}: mark it with kv_suite(name), one of {listed}"
            )
        if self.replay is not None:
            return self.replay.cells(name)
        with _usage_errors():
            self._load_policies()
        settings = self.settings
        chosen = {
            slug: self.gate.retentions(slug, settings.retentions) for slug in self.lineup.slugs
        }
        return list(cells_of(name, retentions=chosen, seeds=settings.seeds))

    def _load_policies(self) -> None:
        """Import the selected policies, unless only names are wanted: that needs no torch.

        Which policies evict on the way, they say themselves.
        """
        if not self.collect_only or self.settings.contract.evict is not EvictMode.PREFILL:
            pin_worker(self.config)
            self.lineup.load()

    # -- collection ---------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        dropped = left_out(items, self.settings)
        if dropped:
            self.config.hook.pytest_deselected(items=dropped)
            gone = set(dropped)
            items[:] = [item for item in items if item not in gone]
        if self.is_worker:
            items[:] = longest_first(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.cells = grouped(session.items)

    def pytest_report_collectionfinish(self, items: Sequence[pytest.Item]) -> list[str]:
        self.cells = grouped(items)
        if not self.cells:
            return self._nothing_of(self.replay)
        count = sum(len(cells) for cells in self.cells.values())
        told = self.replay or self.settings
        source = (
            f"replay of {self.settings.replay}" if self.replay else f"store {self.settings.store}"
        )
        line = (
            f"kvharness: {count} cells in {len(self.cells)} groups of {told.items} items; "
            f"{told.model}, context {told.contract.context}, question "
            f"{told.contract.question.value}{_evicting(told.contract)}; {source}"
        )
        unread = self.replay.warnings if self.replay else ()
        return [line, *(f"kvharness: {each}" for each in unread), *self.judging.outlook(self.cells)]

    def _nothing_of(self, replay: Replay | None) -> list[str]:
        if replay is None:
            return []
        there = ", ".join(replay.suites)
        told = f"{self.settings.replay} has records of {there}, of which no test was collected"
        return [f"kvharness: {told}; name their files, and see -k"]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        lines = self.judging.note_ids(ids)
        if lines:
            self.screen.say("\n".join(lines).removeprefix("kvharness: "))
        if self.replay is None:
            # Only now the controller knows what was selected.
            with _usage_errors():
                self.work.runner.supply.check(cells_of_ids(ids, {}))

    # -- running ------------------------------------------------------------------------------

    def before_loop(self) -> None:
        """Refuse a run that cannot work before it starts; a worker reports it cell by cell."""
        if self.is_worker or self.collect_only or self.replay is not None:
            return
        with _usage_errors():
            if self.cells or self.config.getoption("dist", "no") != "no":
                self._load_policies()
                self.lineup.check_parameters()
                self.work.runner.check(self.cells)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        cell = cell_of(item)
        if cell is not None and self.replay is None:
            self.work.ensure(cell.group, self.cells[cell.group])
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Fail a cell without a result here, as a test: in its fixture it would be an error."""
        cell = cell_of(item)
        if cell is not None and self.replay is None:
            outcome = self.work.outcome(cell.group)
            if reason := outcome.failure(cell):
                pytest.fail(reason, pytrace=False)
            if reason := outcome.untrained.get(cell.name, ""):
                pytest.skip(reason)

    def result(self, request: pytest.FixtureRequest) -> CellResult:
        """What the fixture `kv_result` gives."""
        cell: Cell = request.param
        tally = None
        if self.replay is not None:
            records = self.replay.records(cell)
            expected = self.replay.items
        else:
            outcome = self.work.outcome(cell.group)
            records, expected = outcome.records[cell.name], outcome.items
            if outcome.failure(cell):
                records = []
            tally = Tally.of(cell.group, outcome).as_dict()
        keys = [record.key for record in records]
        told = {"suite": cell.suite, "cell": cell.name, "keys": keys, "tally": tally}
        request.node.user_properties.append((PROPERTY, told))
        contract = self.replay.contract if self.replay else self.settings.contract
        return CellResult(cell=cell, contract=contract, records=tuple(records), expected=expected)

    # -- reporting ----------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, dict):
                self._keys.update(value["keys"])
                self.judging.note_suite(report.nodeid, value["suite"])
                if value["tally"] is not None:
                    self._tallies.add(Tally.from_dict(value["tally"]))

    def pytest_report_teststatus(self, report: pytest.TestReport | pytest.CollectReport) -> object:
        return status(report) if isinstance(report, pytest.TestReport) else None

    def after_loop(self, session: pytest.Session) -> None:
        self.work.close()
        if self.is_worker or self.collect_only:
            return
        if self._keys:
            self._load_policies()
        for problem in self.lineup.broken.values():
            _report_broken(session, problem)
        if self._keys:
            self.judging.judge(session, self.cells, self._keys)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._keys:
            return
        terminalreporter.section("kvharness")
        for line in tables(self.settings.replay or self.settings.store, self._keys):
            terminalreporter.write_line(line)
        for line in (*self._tallies.lines(self.settings.store), *self.judging.summary()):
            terminalreporter.write_line(line)


@contextmanager
def _usage_errors() -> Iterator[None]:
    """End the run with exit status 4 and one line."""
    try:
        yield
    except KvharnessError as error:
        raise pytest.UsageError(str(error)) from None


def _evicting(contract: Contract) -> str:
    """When policies evict, where that is not the default."""
    return "" if contract.evict is EvictMode.PREFILL else f", evict {contract.evict.value}"


def _report_broken(session: pytest.Session, problem: PolicyProblem) -> None:
    """One collection error for a package that does not load; its cells were never made.

    Logged after the loop, since pytest runs nothing once a collection error is known.
    """
    report = pytest.CollectReport(
        nodeid=f"policy {problem.policy}", outcome="failed", longrepr=str(problem), result=[]
    )
    session.config.hook.pytest_collectreport(report=report)
