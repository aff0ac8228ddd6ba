"""The state of a benchmark run inside pytest; registered only when a run has cells."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from tqdm import tqdm

from kvharness import registry
from kvharness.cell import Cell, cells_of
from kvharness.contract import Anchor
from kvharness.errors import KvharnessError, PolicyProblem
from kvharness.items.novelty import distinct_share
from kvharness.parallel import in_shard, pin_worker
from kvharness.plugin import PROPERTY
from kvharness.replay import Replay
from kvharness.result import CellResult
from kvharness.runner import GroupOutcome, Runner
from kvharness.settings import Settings
from kvharness.spec import PolicySpec
from kvharness.suite import SUITES

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from kvharness.cell import Group
    from kvharness.item import Item
    from kvharness.registry import LoadedPolicy


class Bench:
    """Collects cells, computes groups when their first cell comes up, and reports.

    Args:
        config: pytest's.

    Raises:
        UsageProblem: an option makes no sense or names a policy that is not installed.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings = Settings.of(config)
        self.known = registry.installed()
        self.replay = (
            Replay.read(self.settings.replay, self.settings) if self.settings.replay else None
        )
        self.specs = [] if self.replay else self._specs()
        self.policies: dict[str, LoadedPolicy] = {}
        self.broken: dict[str, PolicyProblem] = {}
        self.outcomes: dict[Group, GroupOutcome] = {}
        self.cells: dict[Group, list[Cell]] = {}
        self._keys: set[str] = set()
        self._runner: Runner | None = None
        self._loaded = False

    @property
    def is_worker(self) -> bool:
        return hasattr(self.config, "workerinput")

    @property
    def collect_only(self) -> bool:
        return bool(self.config.getoption("collectonly", default=False))

    def _specs(self) -> list[PolicySpec]:
        chosen = registry.resolve(self.settings.policies, self.known)
        anchors = [PolicySpec(name=name.value) for name in Anchor if name.value in self.known]
        others = [spec for spec in chosen if spec.slug not in {a.slug for a in anchors}]
        return [*anchors, *others]

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
        self._load_policies()
        slugs = [spec.slug for spec in self.specs if str(spec) not in self.broken]
        settings = self.settings
        return list(
            cells_of(name, policies=slugs, retentions=settings.retentions, seeds=settings.seeds)
        )

    def _load_policies(self) -> None:
        """Import the selected policies, unless only names are wanted: that needs no torch."""
        if self._loaded or self.collect_only:
            return
        self._loaded = True
        pin_worker(self.config)
        for spec in self.specs:
            try:
                self.policies[spec.slug] = registry.load(spec, self.known)
            except PolicyProblem as problem:
                self.broken[str(spec)] = problem

    # -- collection ---------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        cells = {item: cell for item in items if (cell := cell_of(item)) is not None}
        settings = self.settings
        wanted = {c.group for c in cells.values() if settings.hard or not SUITES[c.suite].hard}
        mine = {group for group in wanted if in_shard(group, list(wanted), settings.shard)}
        dropped = [item for item, cell in cells.items() if cell.group not in mine]
        if dropped:
            self.config.hook.pytest_deselected(items=dropped)
            gone = set(dropped)
            items[:] = [item for item in items if item not in gone]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._note_cells(session.items)

    def _note_cells(self, items: Sequence[pytest.Item]) -> None:
        self.cells = {}
        # Two tests may look at the same cell, which is computed once.
        for cell in dict.fromkeys(map(cell_of, items)):
            if cell is not None:
                self.cells.setdefault(cell.group, []).append(cell)

    def pytest_report_collectionfinish(self, items: Sequence[pytest.Item]) -> str | None:
        self._note_cells(items)
        if not self.cells:
            return None
        count = sum(len(cells) for cells in self.cells.values())
        settings, contract = self.settings, self.settings.contract
        source = f"replay of {settings.replay}" if self.replay else f"store {settings.store}"
        return (
            f"kvharness: {count} cells in {len(self.cells)} groups of {settings.items} items; "
            f"{settings.model}, context {contract.context}, question {contract.question.value}; "
            f"{source}"
        )

    # -- running ------------------------------------------------------------------------------

    def before_loop(self) -> None:
        """Refuse a run that cannot work before it starts; a worker reports it cell by cell."""
        if self.is_worker or self.collect_only or self.replay is not None:
            return
        if not self.cells and self.config.getoption("dist", "no") == "no":
            return
        try:
            self._load_policies()
            self.runner.check()
        except KvharnessError as error:
            raise pytest.UsageError(str(error)) from None

    @property
    def runner(self) -> Runner:
        if self._runner is None:
            self._runner = Runner(
                self.settings, self.policies, say=self._say, progress=self._progress
            )
        return self._runner

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        cell = cell_of(item)
        if cell is not None and self.replay is None and cell.group not in self.outcomes:
            self.outcomes[cell.group] = self._run(cell.group)
        return (yield)

    def _run(self, group: Group) -> GroupOutcome:
        capture = self.config.pluginmanager.getplugin("capturemanager")
        try:
            if capture is None:
                return self.runner.run(group, self.cells[group])
            with capture.global_and_fixture_disabled():
                return self.runner.run(group, self.cells[group])
        except KvharnessError as error:
            return GroupOutcome(refused=str(error))
        except Exception as error:  # noqa: BLE001 - a fault fails its group, not the whole run
            self._say(f"{group} failed:\n{traceback.format_exc()}")
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            return GroupOutcome(
                refused=f"a fault in kvharness: {reason}; the traceback stands where {group} began"
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Fail a cell without a result here, as a test: in its fixture it would be an error."""
        cell = cell_of(item)
        if cell is not None and self.replay is None:
            reason = self.outcomes[cell.group].failure(cell)
            if reason:
                pytest.fail(reason, pytrace=False)

    def result(self, request: pytest.FixtureRequest) -> CellResult:
        """What the fixture `kv_result` gives."""
        cell: Cell = request.param
        if self.replay is not None:
            records = self.replay.records(cell)
            expected = self.replay.items(cell.group)
        else:
            outcome = self.outcomes[cell.group]
            records, expected = outcome.records[cell.name], outcome.items
            if outcome.failure(cell):
                records = []
        keys = [record.key for record in records]
        request.node.user_properties.append((PROPERTY, {"cell": cell.name, "keys": keys}))
        contract = self.replay.contract if self.replay else self.settings.contract
        return CellResult(cell=cell, contract=contract, records=tuple(records), expected=expected)

    # -- reporting ----------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, dict):
                self._keys.update(value["keys"])

    def after_loop(self, session: pytest.Session) -> None:
        if self._runner is not None:
            self._runner.close()
        if self.is_worker or self.collect_only:
            return
        if self._keys:
            self._load_policies()
        for problem in self.broken.values():
            _report_broken(session, problem)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._keys:
            return
        from kvharness.store import Store  # noqa: PLC0415
        from kvharness.summary import summarize  # noqa: PLC0415

        directory = self.settings.replay or self.settings.store
        stored = Store.read(directory).by_key
        found = [stored[key] for key in sorted(self._keys) if key in stored]
        headers = {each.header.run: each.header for each in found}
        terminalreporter.section("kvharness")
        for line in summarize([each.record for each in found], list(headers.values())):
            terminalreporter.write_line(line)
        if self._runner is not None and self._runner.generated:
            share = distinct_share(self._runner.generated)
            terminalreporter.write_line(
                f"{share:.1%} of the 50-token windows of the generated contexts are distinct"
            )
        if self.outcomes:
            terminalreporter.write_line(self._reuse())

    def _reuse(self) -> str:
        outcomes = self.outcomes.values()
        computed, reused = sum(o.computed for o in outcomes), sum(o.reused for o in outcomes)
        return f"{computed} records computed, {reused} reused; store: {self.settings.store}"

    def _say(self, text: str) -> None:
        if self.is_worker:
            # A worker has no terminal, but it writes to the same screen as its controller.
            worker = self.config.workerinput["workerid"]  # type: ignore[attr-defined]
            print(f"\nkvharness: {worker}: {text}", file=sys.stderr, flush=True)  # noqa: T201
            return
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"kvharness: {text}")

    def _progress(self, items: Sequence[Item], label: str) -> Iterable[Item]:
        quiet = self.is_worker or not sys.stderr.isatty()
        bar: Iterable[Item] = tqdm(items, desc=label, unit="item", leave=False, disable=quiet)
        return bar


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell that a test runs, or None."""
    callspec = getattr(item, "callspec", None)
    cell = callspec.params.get("kv_result") if callspec is not None else None
    return cell if isinstance(cell, Cell) else None


def _report_broken(session: pytest.Session, problem: PolicyProblem) -> None:
    """One collection error for a package that does not load; its cells were never made.

    Logged after the loop, since pytest runs nothing once a collection error is known.
    """
    report = pytest.CollectReport(
        nodeid=f"policy {problem.policy}", outcome="failed", longrepr=str(problem), result=[]
    )
    session.config.hook.pytest_collectreport(report=report)
