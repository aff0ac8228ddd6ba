"""The state of a benchmark run inside pytest; registered only when a run has cells."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.errors import KvharnessError
from kvharness.items.suites import SUITES
from kvharness.plugin.cell_ids import cells_of_ids
from kvharness.plugin.claims_gate import status
from kvharness.plugin.claims_session import Judging
from kvharness.plugin.collection import cell_of, grouped, left_out, longest_first
from kvharness.plugin.computed import Computed
from kvharness.plugin.names import PROPERTY
from kvharness.plugin.replayed import Replayed
from kvharness.plugin.screen import Screen, tables
from kvharness.run.outcome import Tallies, Tally
from kvharness.run.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from kvharness.cell import Cell, Group
    from kvharness.errors import PolicyProblem
    from kvharness.plugin.record_source import RecordSource
    from kvharness.plugin.result import CellResult


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
        self.screen = Screen(config)
        replay = self.settings.replay
        self.source: RecordSource = (
            Computed(config, self.settings, self.screen)
            if replay is None
            else Replayed(replay, self.settings)
        )
        self.judging = Judging(self.source.gate, self.settings, self.source)
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
        with _usage_errors():
            return self.source.cells(name)

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
        title = self.source.title(self.cells)
        return [*title, *self.judging.outlook(self.cells)] if self.cells else title

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        lines = self.judging.note_ids(ids)
        if lines:
            self.screen.say("\n".join(lines).removeprefix("kvharness: "))
        # Only now the controller knows what was selected.
        with _usage_errors():
            self.source.check_items(cells_of_ids(ids, {}))

    # -- running ------------------------------------------------------------------------------

    def before_loop(self) -> None:
        """Refuse a run that cannot work before it starts; a worker reports it cell by cell."""
        if self.is_worker or self.collect_only:
            return
        if self.cells or self.config.getoption("dist", "no") != "no":
            with _usage_errors():
                self.source.check(self.cells)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        cell = cell_of(item)
        if cell is not None:
            self.source.ensure(cell.group, self.cells[cell.group])
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Fail a cell without a result here, as a test: in its fixture it would be an error."""
        cell = cell_of(item)
        if cell is not None:
            if reason := self.source.failure(cell):
                pytest.fail(reason, pytrace=False)
            if reason := self.source.lack(cell):
                pytest.skip(reason)

    def result(self, request: pytest.FixtureRequest) -> CellResult:
        """What the fixture `kv_result` gives."""
        cell: Cell = request.param
        result = self.source.result(cell)
        told = {
            "suite": cell.suite,
            "cell": cell.name,
            "keys": [record.key for record in result.records],
            "tallies": [tally.as_dict() for tally in self.source.tallies(cell)],
        }
        request.node.user_properties.append((PROPERTY, told))
        return result

    # -- reporting ----------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, dict):
                self._keys.update(value["keys"])
                self.judging.note_suite(report.nodeid, value["suite"])
                for tally in value["tallies"]:
                    self._tallies.add(Tally.from_dict(tally))

    def pytest_report_teststatus(self, report: pytest.TestReport | pytest.CollectReport) -> object:
        return status(report) if isinstance(report, pytest.TestReport) else None

    def after_loop(self, session: pytest.Session) -> None:
        self.source.close()
        if self.is_worker or self.collect_only:
            return
        if self._keys:
            self.source.load()
        for problem in self.source.problems:
            _report_broken(session, problem)
        if self._keys:
            self.judging.judge(session, self.cells, self._keys)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._keys:
            return
        terminalreporter.section("kvharness")
        for line in tables(self.source.directory, self._keys):
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


def _report_broken(session: pytest.Session, problem: PolicyProblem) -> None:
    """One collection error for a package that does not load; its cells were never made.

    Logged after the loop, since pytest runs nothing once a collection error is known.
    """
    report = pytest.CollectReport(
        nodeid=f"policy {problem.policy}", outcome="failed", longrepr=str(problem), result=[]
    )
    session.config.hook.pytest_collectreport(report=report)
