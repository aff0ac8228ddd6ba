"""Which tasks a group has, under which keys, and which of them the store lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.engine.task import Task
from kvharness.errors import KvharnessError, PolicyProblem, TrainingProblem
from kvharness.items.repetition import Novelty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kvharness.cell import Cell, Group
    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.items.item import Item
    from kvharness.pretrained.find import ModelSource
    from kvharness.run.identity import RunIdentity
    from kvharness.run.items import Supply
    from kvharness.run.outcome import GroupOutcome
    from kvharness.run.reuse import Shelf

    #: The tasks of each item of a group.
    Tasks = list[tuple[Item, list[Task]]]


class TaskPlanner:
    """Plans groups; nothing is computed, so that neither weights nor a device are needed.

    Args:
        policies: loaded policies by slug.
        named: slugs of those that the user asked for one by one.
        source: of the model.
        supply: of the items.
        identity: of the run.
        shelf: with what was stored before.
    """

    def __init__(
        self,
        policies: Mapping[str, LoadedPolicy],
        named: Sequence[str],
        *,
        source: ModelSource,
        supply: Supply,
        identity: RunIdentity,
        shelf: Shelf,
    ) -> None:
        self._policies = policies
        self._named = named
        self._source = source
        self._supply = supply
        self._identity = identity
        self._shelf = shelf

    def plan(self, group: Group, cells: Sequence[Cell], outcome: GroupOutcome) -> Tasks:
        """All tasks of a group; ``outcome`` is told of its items, and of cells that cannot run."""
        items = self._supply.items(group)
        outcome.items = len(items)
        if self._supply.is_generated(group.suite):
            outcome.novelty = Novelty.of(item.context for item in items)
        weights = self._weights(group, cells, outcome)
        known = [cell for cell in cells if cell.policy in weights]
        return [
            (item, [self._task(cell, item, weights[cell.policy]) for cell in known])
            for item in items
        ]

    def missing(self, planned: Tasks, outcome: GroupOutcome) -> Tasks:
        """What is left to compute; ``outcome`` is given the records that the store has."""
        stored = self._shelf.find()
        for _, tasks in planned:
            for task in tasks:
                if task.key in stored:
                    outcome.records[task.cell.name].append(stored[task.key].record)
                    outcome.reused += 1
        waiting = (
            (item, [task for task in tasks if task.key not in stored]) for item, tasks in planned
        )
        return [(item, tasks) for item, tasks in waiting if tasks]

    def _weights(
        self, group: Group, cells: Sequence[Cell], outcome: GroupOutcome
    ) -> dict[str, str]:
        """The checkpoint of each policy; cells of one that has none for this seed are not run.

        That is a failure where the policy was asked for by name. Claims and default runs bring
        learned policies to models that they were never trained for.
        """
        found: dict[str, str] = {}
        for slug in dict.fromkeys(cell.policy for cell in cells):
            try:
                found[slug] = self._policies[slug].policy.checkpoint(self._source, group.seed)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code
                asked = slug in self._named or not isinstance(error, TrainingProblem)
                told = outcome.failures if asked else outcome.untrained
                lacking = [cell.name for cell in cells if cell.policy == slug]
                told.update(dict.fromkeys(lacking, _told(slug, "checkpoint", error)))
        return found

    def _task(self, cell: Cell, item: Item, weights: str) -> Task:
        key = self._identity.key(cell, item, weights)
        return Task(cell=cell, policy=self._policies[cell.policy], key=key)


def _told(policy: str, doing: str, error: BaseException) -> str:
    """Why a policy cannot run; a problem that is meant to be read stands as it is."""
    if isinstance(error, PolicyProblem):
        return str(error)
    if isinstance(error, KvharnessError):
        return str(PolicyProblem(policy, str(error)))
    message = f"{doing} failed with {type(error).__name__}: {error}".splitlines()[0]
    return str(PolicyProblem(policy, message))
