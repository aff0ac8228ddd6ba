"""Computing a group: what the store has is reused, the rest is run and stored at once."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from kvharness.discovery.declared import made_ready
from kvharness.engine.task import Failure, Generate, Setup, Task
from kvharness.errors import KvharnessError, PolicyProblem, TrainingProblem
from kvharness.isolation.last_words import BlackBox
from kvharness.items.repetition import Novelty
from kvharness.items.suites import SUITES
from kvharness.policy.interface import LoadedModel
from kvharness.pretrained.find import describe, find_model
from kvharness.records.engine_version import ENGINE_VERSION
from kvharness.records.key import record_key, shared_key
from kvharness.records.masks import write_mask
from kvharness.records.store import SCHEMA, Header, Store, check_writable, group_lock
from kvharness.run.items import Supply
from kvharness.run.outcome import GroupOutcome
from kvharness.run.reuse import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from kvharness.cell import Cell, Group
    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.items.item import Item
    from kvharness.model.loaded import Runtime
    from kvharness.pretrained.find import ModelSource
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
        progress: Callable[[Sequence[Item], str], Iterable[Item]] | None = None,
        box: BlackBox | None = None,
    ) -> None:
        self.settings = settings
        self.policies = policies
        self._say = say
        self._progress = progress or (lambda items, _: items)
        self._box = box or BlackBox()
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
    def runtime(self) -> Runtime:
        from kvharness.model.loaded import Runtime  # noqa: PLC0415 - torch

        settings = self.settings
        return Runtime.load(
            self.source,
            device=settings.device,
            dtype=settings.dtype,
            threads=settings.threads,
        )

    @cached_property
    def shared(self) -> dict[str, object]:
        """The part of every record's key that the whole run shares."""
        from kvharness.model.loaded import identity, resolve_device, resolve_dtype  # noqa: PLC0415

        settings = self.settings
        device = resolve_device(settings.device)
        dtype = resolve_dtype(settings.dtype, device)
        model = identity(
            self.source,
            self.supply.encoder,
            device=device.type,
            dtype=dtype,
            threads=settings.threads,
        )
        shared = shared_key(
            model,
            settings.contract,
            generate=settings.generate,
            schema=SCHEMA,
            engine=ENGINE_VERSION,
        )
        options = settings.keyed()
        return {**shared, **({"options": options} if options else {})}

    def _header(self) -> Header:
        settings = self.settings
        return Header.create(
            {
                **self.shared,
                "model": {**describe(self.source), **dict(self.shared["model"])},  # type: ignore[call-overload]
                "seeds": settings.seeds,
                "items": settings.items,
                "data": dict(settings.data),
                "options": settings.options(),
                "policies": {slug: p.identity() for slug, p in self.policies.items()},
                "oracles": sorted(slug for slug, p in self.policies.items() if p.oracle),
            }
        )

    def close(self) -> None:
        self._shelf.close()

    def run(self, group: Group, cells: Sequence[Cell]) -> GroupOutcome:
        """Records of a group's cells, from the store or computed now.

        Only one process computes a group at a time; another one waits and reuses.
        """
        items = self.supply.items(group)
        outcome = GroupOutcome(items=len(items))
        if self.supply.is_generated(group.suite):
            outcome.novelty = Novelty.of(item.context for item in items)
        weights = self._weights(group, cells, outcome)
        known = [cell for cell in cells if cell.policy in weights]
        with group_lock(self.settings.store, str(group)):
            waiting = self._reuse(items, known, weights, outcome)
            if waiting:
                self._compute(group, waiting, outcome)
        self._in_item_order(items, outcome)
        return outcome

    def _weights(
        self, group: Group, cells: Sequence[Cell], outcome: GroupOutcome
    ) -> dict[str, str]:
        """The checkpoint of each policy; cells of one that has none for this seed are not run.

        That is a failure where the policy was asked for by name. Claims and default runs bring
        learned policies to models that they were never trained for.
        """
        named = self.settings.named
        found: dict[str, str] = {}
        for slug in dict.fromkeys(cell.policy for cell in cells):
            try:
                found[slug] = self.policies[slug].policy.checkpoint(self.source, group.seed)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code
                asked = slug in named or not isinstance(error, TrainingProblem)
                told = outcome.failures if asked else outcome.untrained
                lacking = [cell.name for cell in cells if cell.policy == slug]
                told.update(dict.fromkeys(lacking, _told(slug, "checkpoint", error)))
        return found

    def _reuse(
        self,
        items: Sequence[Item],
        cells: Sequence[Cell],
        weights: Mapping[str, str],
        outcome: GroupOutcome,
    ) -> list[tuple[Item, list[Task]]]:
        """Take what the store has, and say what is left to compute."""
        stored = self._shelf.find()
        waiting: list[tuple[Item, list[Task]]] = []
        for item in items:
            tasks = [self._task(cell, item, weights[cell.policy]) for cell in cells]
            missing = [task for task in tasks if task.key not in stored]
            for task in tasks:
                if task.key in stored:
                    outcome.records[task.cell.name].append(stored[task.key].record)
                    outcome.reused += 1
            if missing:
                waiting.append((item, missing))
        return waiting

    def _compute(
        self, group: Group, waiting: list[tuple[Item, list[Task]]], outcome: GroupOutcome
    ) -> None:
        from kvharness.engine.item_run import run_item  # noqa: PLC0415 - torch

        count = sum(len(tasks) for _, tasks in waiting)
        self._say(
            f"{group}: computing {count} records on {len(waiting)} items, "
            f"{outcome.reused} reused from {self.settings.store.name}"
        )
        setup = Setup(
            runtime=self.runtime,
            contract=self.settings.contract,
            generate=Generate(self.settings.generate),
            score_name=SUITES[group.suite].score,
            keep_mask=self._keep_mask if self.settings.masks else None,
            box=self._box,
        )
        ready = self._make_ready(group, waiting, outcome)
        work = {
            item.name: [
                replace(task, policy=ready[task.policy.slug])
                for task in tasks
                if task.policy.slug in ready
            ]
            for item, tasks in waiting
        }
        for item in self._progress([item for item, _ in waiting], str(group)):
            tasks = [task for task in work[item.name] if task.cell.name not in outcome.failures]
            for result in run_item(setup, item, tasks) if tasks else ():
                if isinstance(result, Failure):
                    outcome.failures[result.cell.name] = f"{item.name}: {result.reason}"
                    continue
                self._shelf.put(result)
                outcome.records[next(t for t in tasks if t.key == result.key).cell.name].append(
                    result
                )
                outcome.computed += 1

    def _keep_mask(self, digest: str, mask: Tensor) -> None:
        write_mask(self.settings.store, digest, mask.cpu().numpy())

    def _make_ready(
        self, group: Group, waiting: list[tuple[Item, list[Task]]], outcome: GroupOutcome
    ) -> dict[str, LoadedPolicy]:
        """The policies that score on this model and with this seed; those that fail are left out.

        They are the group's own, and what they loaded goes with it.
        """
        from kvharness.isolation.attribution import blamed  # noqa: PLC0415 - torch

        tasks = {task.cell.name: task for _, tasks in waiting for task in tasks}
        reasons: dict[str, str] = {}
        ready: dict[str, LoadedPolicy] = {}
        model = LoadedModel(source=self.source, module=self.runtime.model)
        for slug in {task.policy.slug for task in tasks.values()}:
            loaded = self.policies[slug]
            doing = f"policy {slug!r}, getting ready for seed {group.seed}"
            try:
                with self._box.during(doing), blamed(slug, stage="ready"):
                    policy = made_ready(loaded.policy, model, group.seed, name=slug)
                ready[slug] = replace(loaded, policy=policy)
            except KvharnessError as problem:
                reasons[slug] = str(problem)
        for name, task in tasks.items():
            if task.policy.slug in reasons:
                outcome.failures[name] = reasons[task.policy.slug]
        return ready

    def _task(self, cell: Cell, item: Item, weights: str) -> Task:
        policy = self.policies[cell.policy]
        identity = policy.identity() | ({"checkpoint": weights} if weights else {})
        key = record_key(self.shared, identity, cell, item.identity)
        return Task(cell=cell, policy=policy, key=key)

    def _in_item_order(self, items: Sequence[Item], outcome: GroupOutcome) -> None:
        order = {item.name: number for number, item in enumerate(items)}
        for records in outcome.records.values():
            records.sort(key=lambda record: order[record.item])


def _told(policy: str, doing: str, error: BaseException) -> str:
    """Why a policy cannot run; a problem that is meant to be read stands as it is."""
    if isinstance(error, PolicyProblem):
        return str(error)
    if isinstance(error, KvharnessError):
        return str(PolicyProblem(policy, str(error)))
    message = f"{doing} failed with {type(error).__name__}: {error}".splitlines()[0]
    return str(PolicyProblem(policy, message))
