from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from kvharness.cell import Cell, Group
from kvharness.errors import DataProblem
from kvharness.plugin.groups import Work
from kvharness.plugin.screen import Screen
from kvharness.run.outcome import GroupOutcome
from kvharness.run.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvharness.run.settings import Settings

FIRST, SECOND = Group("needle", 0), Group("needle", 1)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def work(tmp_path: Path, lines: list[str]) -> Work:
    reporter = SimpleNamespace(ensure_newline=lambda: None, write_line=lines.append)
    plugins = {"terminalreporter": reporter}
    config = cast(
        "pytest.Config", SimpleNamespace(pluginmanager=SimpleNamespace(getplugin=plugins.get))
    )
    settings = cast("Settings", SimpleNamespace(store=tmp_path, fresh=False))
    return Work(config, settings, {}, Screen(config))


def runs(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[Group]:
    """Note the groups that are run; the first of them may fail."""
    seen: list[Group] = []

    def run(_: Runner, group: Group, cells: Sequence[Cell]) -> GroupOutcome:
        seen.append(group)
        if error is not None and group == FIRST:
            raise error
        return GroupOutcome(computed=len(cells))

    monkeypatch.setattr(Runner, "run", run)
    return seen


def test_a_group_is_run_once(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = runs(monkeypatch)
    cells: list[Any] = [object()]
    for group in (FIRST, SECOND, FIRST):
        work.ensure(group, cells)
    assert seen == [FIRST, SECOND]
    assert work.outcome(FIRST).computed == 1


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (DataProblem("no such file"), "no such file"),
        (
            ValueError("odd\nindeed"),
            "a fault in kvharness: ValueError: odd; the traceback stands where needle-s0 began",
        ),
    ],
)
def test_what_happens_in_a_group_stays_in_it(
    work: Work,
    lines: list[str],
    error: Exception,
    refused: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs(monkeypatch, error)
    for group in (FIRST, SECOND):
        work.ensure(group, [])
    assert (work.outcome(FIRST).refused, work.outcome(SECOND).refused) == (refused, "")
    assert len(lines) == isinstance(error, ValueError), "a traceback only where it helps"


def test_closing_makes_no_runner(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvharness.plugin.groups.Runner", None)
    work.close()
