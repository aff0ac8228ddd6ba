"""The pytest plugin: hooks only.

It loads into every pytest run where kvharness is installed, so it imports nothing heavy and does
nothing until a test asks for the fixture `kv_result`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from kvharness.plugin.names import FIXTURE, PROBLEM, PROPERTY
from kvharness.run.options import add_options, given

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from kvharness.plugin.result import CellResult
    from kvharness.plugin.session import Bench

BENCH: pytest.StashKey[Bench] = pytest.StashKey()
CHECKS = "kvharness.testing"


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "kv_suite(name): the kvharness suite whose cells a test runs through kv_result"
    )
    config.addinivalue_line("markers", "kv_speed: speed measurements, run by nox -s perf only")
    if _only_checks(config):
        return
    if given(config) or (_is_controller(config) and _runs_cells(config)):
        _bench(config)


def _only_checks(config: pytest.Config) -> bool:
    """Whether a run is about `kvharness.testing` alone, which shares ``--policy`` and no more."""
    checks = [argument.startswith(CHECKS) for argument in config.args]
    return all(checks) and bool(config.getoption("pyargs", default=False))


def _is_controller(config: pytest.Config) -> bool:
    """Whether xdist workers collect for this process, which then sees no cell itself."""
    return config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")


def _bench(config: pytest.Config) -> Bench:
    """The run's state, made when the first cell or option of ours turns up."""
    if BENCH not in config.stash:
        from kvharness.errors import KvharnessError  # noqa: PLC0415
        from kvharness.plugin.session import Bench  # noqa: PLC0415 - other people's runs never need it

        try:
            config.stash[BENCH] = Bench(config)
        except KvharnessError as error:
            raise pytest.UsageError(str(error)) from None
        config.pluginmanager.register(config.stash[BENCH], "kvharness-bench")
    return config.stash[BENCH]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if FIXTURE not in metafunc.fixturenames:
        return
    try:
        cells = _bench(metafunc.config).cells_for(metafunc)
    except pytest.UsageError as error:
        # Raised here, it would be a collection error with a traceback through pytest.
        metafunc.config.stash[PROBLEM] = error
        cells = []
    parameters = [pytest.param(cell, id=cell.name) for cell in cells]
    metafunc.parametrize(FIXTURE, parameters, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    outcome = yield
    if PROBLEM in session.config.stash:
        raise session.config.stash[PROBLEM]
    return outcome


def pytest_report_collectionfinish(items: Sequence[pytest.Item]) -> list[str]:
    """Which checks of `kvharness.testing` do not apply, where a run has any."""
    module = sys.modules.get(f"{CHECKS}.parametrize")
    lines: list[str] = [] if module is None else module.left_out_lines(items)
    return lines


@pytest.fixture
def kv_result(request: pytest.FixtureRequest) -> CellResult:
    """What one cell did on all its items; parametrized over policy, retention and seed."""
    return request.config.stash[BENCH].result(request)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    if not _runs_cells(config):
        return None
    from kvharness.plugin.workers import auto_workers  # noqa: PLC0415

    return auto_workers()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    if config.getoption("dist", "no") != "load" or not _runs_cells(config):
        return None
    from kvharness.plugin.workers import group_scheduler  # noqa: PLC0415

    scheduler: object = group_scheduler(config, log)
    return scheduler


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: pytest.TestReport) -> None:
    """Name the policy that ended its process: xdist names the test whose turn it was."""
    from kvharness.isolation.last_words import BlackBox  # noqa: PLC0415

    doing = BlackBox.of(report.node.workerinput).take()
    if doing:
        report.longrepr = f"the process died inside {doing}: {report.longrepr}"


def _runs_cells(config: pytest.Config) -> bool:
    """Whether this run is about kvharness cells, judged before anything is collected."""
    if given(config):
        return True
    from kvharness.plugin.workers import mentions_cells  # noqa: PLC0415

    return mentions_cells(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    bench = session.config.stash.get(BENCH, None)
    if bench is not None:
        bench.before_loop()
    outcome = yield
    bench = session.config.stash.get(BENCH, None)
    if bench is not None:
        bench.after_loop(session)
    return outcome


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Join in late where xdist workers found cells in a folder that nobody looked into."""
    node = getattr(report, "node", None)
    if node is None or BENCH in node.config.stash:
        return
    if any(name == PROPERTY for name, _ in report.user_properties):
        _bench(node.config).pytest_runtest_logreport(report)
