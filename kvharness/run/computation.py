"""Computing the tasks of a group: the model, the policies' preparation, and the engine."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from kvharness.discovery.declared import made_ready
from kvharness.engine.task import Failure, Generate, Setup
from kvharness.errors import KvharnessError
from kvharness.isolation.last_words import BlackBox
from kvharness.items.suites import SUITES
from kvharness.policy.interface import LoadedModel
from kvharness.records.masks import write_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from kvharness.cell import Group
    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.engine.task import Task
    from kvharness.items.item import Item
    from kvharness.model.loaded import Runtime
    from kvharness.pretrained.find import ModelSource
    from kvharness.records.record import Record
    from kvharness.run.outcome import GroupOutcome
    from kvharness.run.planner import Tasks
    from kvharness.run.settings import Settings

    Progress = Callable[[Sequence[Item], str], Iterable[Item]]


class Computation:
    """Runs tasks on one model, which is loaded when the first of them comes.

    Args:
        settings: of the run.
        source: of the model.
        keep: is given each record as soon as it is there.
        progress: wraps the items of a group in a progress bar.
        box: says which policy runs, should it end the process.
    """

    def __init__(
        self,
        settings: Settings,
        source: ModelSource,
        *,
        keep: Callable[[Record], None],
        progress: Progress | None = None,
        box: BlackBox | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._keep = keep
        self._progress = progress or (lambda items, _: items)
        self._box = box or BlackBox()

    @cached_property
    def runtime(self) -> Runtime:
        from kvharness.model.loaded import Runtime  # noqa: PLC0415 - torch

        settings = self._settings
        return Runtime.load(
            self._source,
            device=settings.device,
            dtype=settings.dtype,
            threads=settings.threads,
        )

    def compute(self, group: Group, waiting: Tasks, outcome: GroupOutcome) -> None:
        """Run tasks item by item; ``outcome`` is given their records and failures."""
        setup = self._setup(group)
        ready = self._made_ready(group, waiting, outcome)
        work = {item.name: tasks for item, tasks in waiting}
        for item in self._progress([item for item, _ in waiting], str(group)):
            left = [
                replace(task, policy=ready[task.policy.slug])
                for task in work[item.name]
                if task.cell.name not in outcome.failures
            ]
            for task, record in self._run(setup, item, left, outcome):
                self._keep(record)
                outcome.records[task.cell.name].append(record)
                outcome.computed += 1

    def _run(
        self, setup: Setup, item: Item, tasks: Sequence[Task], outcome: GroupOutcome
    ) -> Iterator[tuple[Task, Record]]:
        """The records of an item, each with its task, as they come."""
        from kvharness.engine.item_run import run_item  # noqa: PLC0415 - torch

        by_key = {task.key: task for task in tasks}
        for result in run_item(setup, item, tasks) if tasks else ():
            if isinstance(result, Failure):
                outcome.failures[result.cell.name] = f"{item.name}: {result.reason}"
            else:
                yield by_key[result.key], result

    def _setup(self, group: Group) -> Setup:
        settings = self._settings
        return Setup(
            runtime=self.runtime,
            contract=settings.contract,
            generate=Generate(settings.generate),
            score_name=SUITES[group.suite].score,
            keep_mask=self._keep_mask if settings.masks else None,
            box=self._box,
        )

    def _keep_mask(self, digest: str, mask: Tensor) -> None:
        write_mask(self._settings.store, digest, mask.cpu().numpy())

    def _made_ready(
        self, group: Group, waiting: Tasks, outcome: GroupOutcome
    ) -> dict[str, LoadedPolicy]:
        """The policies that score on this model and with this seed; those that fail are left out.

        They are the group's own, and what they loaded goes with it.
        """
        ready: dict[str, LoadedPolicy] = {}
        tasks = {task.cell.name: task for _, tasks in waiting for task in tasks}
        for loaded in {task.policy.slug: task.policy for task in tasks.values()}.values():
            try:
                ready[loaded.slug] = self._ready(loaded, group.seed)
            except KvharnessError as problem:
                mine = (name for name, task in tasks.items() if task.policy.slug == loaded.slug)
                outcome.failures.update(dict.fromkeys(mine, str(problem)))
        return ready

    def _ready(self, loaded: LoadedPolicy, seed: int) -> LoadedPolicy:
        from kvharness.isolation.attribution import blamed  # noqa: PLC0415 - torch

        model = LoadedModel(source=self._source, module=self.runtime.model)
        slug = loaded.slug
        doing = f"policy {slug!r}, getting ready for seed {seed}"
        with self._box.during(doing), blamed(slug, stage="ready"):
            policy = made_ready(loaded.policy, model, seed, name=slug)
        return replace(loaded, policy=policy)
