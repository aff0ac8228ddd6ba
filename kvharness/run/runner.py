"""Running groups: what the store has is reused, the rest is computed and stored at once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from kvharness.pretrained.find import find_model
from kvharness.records.store import Store, check_writable, group_lock
from kvharness.run.computation import Computation
from kvharness.run.identity import RunIdentity
from kvharness.run.items import Supply
from kvharness.run.outcome import GroupOutcome
from kvharness.run.planner import TaskPlanner
from kvharness.run.reuse import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from kvharness.cell import Cell, Group
    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.isolation.last_words import BlackBox
    from kvharness.pretrained.find import ModelSource
    from kvharness.records.header import Header
    from kvharness.run.computation import Progress
    from kvharness.run.planner import Tasks
    from kvharness.run.settings import Settings


class Runner:
    """Runs groups with one model, one store and one set of policies.

    Args:
        settings: of the run.
        policies: loaded policies by slug.
        say: prints a line for the user.
        progress: wraps the items of a group in a progress bar.
        box: says which policy runs, should it end the process.
    """

    def __init__(
        self,
        settings: Settings,
        policies: Mapping[str, LoadedPolicy],
        *,
        say: Callable[[str], None] = print,
        progress: Progress | None = None,
        box: BlackBox | None = None,
    ) -> None:
        self.settings = settings
        self.policies = policies
        self._say = say
        self._progress = progress
        self._box = box
        self._shelf = Shelf(settings.store, fresh=settings.fresh, header=self._header, say=say)

    def check(self, groups: Iterable[Group] = ()) -> None:
        """Find what is wrong before anything is computed.

        Args:
            groups: to run, as far as they are known.

        Raises:
            KvharnessError: no model, a context beyond its window, or a store that is unwritable.
        """
        from kvharness.model.loaded import check_window, resolve_device  # noqa: PLC0415 - torch

        check_writable(self.settings.store)
        Store.read(self.settings.store)
        resolve_device(self.settings.device)
        check_window(self.source, self.settings.contract.context)
        self.supply.check(groups)

    @cached_property
    def source(self) -> ModelSource:
        return find_model(self.settings.model, say=self._say)

    @cached_property
    def supply(self) -> Supply:
        return Supply(self.settings, self.source)

    @cached_property
    def _identity(self) -> RunIdentity:
        return RunIdentity(self.settings, self.source, self.supply.encoder, self.policies)

    def _header(self) -> Header:
        return self._identity.header()

    @cached_property
    def _planner(self) -> TaskPlanner:
        return TaskPlanner(
            self.policies,
            self.settings.named,
            source=self.source,
            supply=self.supply,
            identity=self._identity,
            shelf=self._shelf,
        )

    @cached_property
    def _computation(self) -> Computation:
        return Computation(
            self.settings,
            self.source,
            keep=self._shelf.put,
            progress=self._progress,
            box=self._box,
        )

    def run(self, group: Group, cells: Sequence[Cell]) -> GroupOutcome:
        """Records of a group's cells, from the store or computed now.

        Only one process computes a group at a time; another one waits and reuses.
        """
        outcome = GroupOutcome()
        planned = self._planner.plan(group, cells, outcome)
        with group_lock(self.settings.store, str(group)):
            waiting = self._planner.missing(planned, outcome)
            if waiting:
                self._announce(group, waiting, outcome)
                self._computation.compute(group, waiting, outcome)
        outcome.sort([item.name for item, _ in planned])
        return outcome

    def _announce(self, group: Group, waiting: Tasks, outcome: GroupOutcome) -> None:
        count = sum(len(tasks) for _, tasks in waiting)
        self._say(
            f"{group}: computing {count} records on {len(waiting)} items, "
            f"{outcome.reused} reused from {self.settings.store.name}"
        )

    def close(self) -> None:
        self._shelf.close()
