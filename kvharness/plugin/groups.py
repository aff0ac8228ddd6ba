"""The groups that a pytest process has run, each when its first test came up."""

from __future__ import annotations

import traceback
from functools import cached_property
from typing import TYPE_CHECKING

from kvharness.errors import KvharnessError
from kvharness.isolation.last_words import BlackBox
from kvharness.run.outcome import GroupOutcome
from kvharness.run.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

    from kvharness.cell import Cell, Group
    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.plugin.screen import Screen
    from kvharness.run.settings import Settings


class Work:
    """Outcomes by group. Whatever happens in a group, the other groups are run.

    Args:
        config: pytest's.
        settings: of the run.
        policies: by slug; they may be loaded later, before the first group.
        screen: for what is to be said.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        policies: Mapping[str, LoadedPolicy],
        screen: Screen,
    ) -> None:
        self._config = config
        self._settings = settings
        self._policies = policies
        self._screen = screen
        self._outcomes: dict[Group, GroupOutcome] = {}

    @cached_property
    def runner(self) -> Runner:
        return Runner(
            self._settings,
            self._policies,
            say=self._screen.say,
            progress=self._screen.progress,
            box=BlackBox.of(getattr(self._config, "workerinput", None)),
        )

    def ensure(self, group: Group, cells: Sequence[Cell]) -> None:
        """Run a group that has not been run."""
        if group not in self._outcomes:
            self._outcomes[group] = self._run(group, cells)

    def outcome(self, group: Group) -> GroupOutcome:
        return self._outcomes[group]

    def close(self) -> None:
        if "runner" in self.__dict__:
            self.runner.close()

    def _run(self, group: Group, cells: Sequence[Cell]) -> GroupOutcome:
        capture = self._config.pluginmanager.getplugin("capturemanager")
        try:
            if capture is None:
                return self.runner.run(group, cells)
            with capture.global_and_fixture_disabled():
                return self.runner.run(group, cells)
        except KvharnessError as error:
            return GroupOutcome(refused=str(error))
        except Exception as error:  # noqa: BLE001 - a fault fails its group, not the whole run
            self._screen.say(f"{group} failed:\n{traceback.format_exc()}")
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            return GroupOutcome(
                refused=f"a fault in kvharness: {reason}; the traceback stands where {group} began"
            )
