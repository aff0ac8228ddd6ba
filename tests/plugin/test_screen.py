from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from kvharness.plugin.screen import Screen

if TYPE_CHECKING:
    import pytest

    from kvharness.items.item import Item


class Reporter:
    """What stands for pytest's own."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def ensure_newline(self) -> None:
        self.lines.append("")

    def write_line(self, text: str) -> None:
        self.lines.append(text)


def config(reporter: Reporter | None, **more: object) -> pytest.Config:
    manager = SimpleNamespace(getplugin=lambda _: reporter)
    return cast("pytest.Config", SimpleNamespace(pluginmanager=manager, **more))


def test_a_line_starts_on_a_line_of_its_own() -> None:
    reporter = Reporter()
    Screen(config(reporter)).say("half done")
    assert reporter.lines == ["", "kvharness: half done"]


def test_nothing_is_said_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(config(None)).say("half done")
    assert capsys.readouterr() == ("", "")


def test_a_worker_names_itself_and_shows_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(config(None, workerinput={"workerid": "gw1"}))
    screen.say("half done")
    items = cast("list[Item]", [1, 2])
    assert list(screen.progress(items, "needle-s0")) == items
    assert capsys.readouterr().err == "\nkvharness: gw1: half done\n"
