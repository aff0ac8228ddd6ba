"""What each task keeps of one context."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness.contract import Anchor, EvictMode
from kvharness.engine.blockwise_prefill import read_each
from kvharness.engine.evictor import EQUAL_BUDGETS, Evictor
from kvharness.engine.rolling_decode import Rolled
from kvharness.engine.select import score_tokens, select_entries
from kvharness.errors import KvharnessError, PolicyProblem
from kvharness.isolation.attribution import blamed
from kvharness.isolation.tampering import TamperedError
from kvharness.model.evicted_cache import Kept
from kvharness.policy.view import Positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kvharness.contract import Protection
    from kvharness.engine.answer import Request
    from kvharness.engine.blockwise_prefill import BlockRead
    from kvharness.engine.task import Setup, Task
    from kvharness.items.item import Item
    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from kvharness.policy.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What one task keeps of one context.

    Attributes:
        seconds: to observe after the pass, score and select.
        rolled: how it goes on, where policies evict while decoding.
        read: what it read in blocks, where the context is read so; prefill and selection are one.
    """

    task: Task
    kept: Kept
    seconds: float
    rolled: Rolled | None = None
    read: BlockRead | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """What a policy saw of a context, and its scores: the same for every retention."""

    trace: Trace
    scores: torch.Tensor
    seconds: float


class Selector:
    """Scores each policy once and selects from its scores for every retention.

    ``watch`` tells whether a trace is as it was.
    """

    def __init__(
        self,
        setup: Setup,
        item: Item,
        trace: Trace,
        everything: Kept,
        watch: Callable[[Trace], list[int]],
    ) -> None:
        self._watch = watch
        self._setup = setup
        self._item = item
        self._trace = trace
        self._everything = everything
        self._scored: dict[str, _Scored] = {}

    def choose_each(
        self, tasks: Sequence[Task], prefilled: Prefilled
    ) -> Iterator[tuple[Task, Chosen | KvharnessError]]:
        """What each task keeps of the prefilled context, or why it cannot say."""
        for task in tasks:
            try:
                observing = prefilled.observing_seconds(task.policy.policy.needs)
                yield task, self.choose(task, observing)
            except KvharnessError as error:
                yield task, error

    def read_each(
        self,
        tasks: Sequence[Task],
        request: Request,
        context: Sequence[int],
    ) -> Iterator[tuple[Task, Chosen | KvharnessError]]:
        """What each task keeps of a context that it reads in blocks, or why it does not."""
        reading = []
        for task in tasks:
            try:
                if task.cell.policy == Anchor.FULL:
                    yield task, Chosen(task=task, kept=self._everything, seconds=0.0)
                else:
                    request.context.observing_seconds(task.policy.policy.needs)
                    reading.append((task, self._evictor(task)))
            except KvharnessError as error:
                yield task, error
        evictors = [evictor for _, evictor in reading]
        read = read_each(self._setup.runtime, request, context, evictors)
        for (task, _), each in zip(reading, read, strict=True):
            if isinstance(each, KvharnessError):
                yield task, each
            else:
                yield task, Chosen(task=task, kept=each.kept, seconds=0.0, read=each)

    def _held(self, task: Task) -> tuple[int, Protection]:
        """The budget of a task, and what it keeps in any case.

        Raises:
            UsageProblem: the budget cannot hold that.
        """
        contract = self._setup.contract
        after = self._trace.tokens - len(self._item.context)
        budget = task.cell.budget(self._trace.tokens, contract, after=after)
        if task.cell.policy == Anchor.FLOOR:
            return budget, contract.ground(after).fit(budget)
        return budget, contract.protected(budget)

    def _evictor(self, task: Task) -> Evictor:
        budget, protection = self._held(task)
        return Evictor(
            name=task.policy.slug,
            policy=task.policy.policy,
            budget=budget,
            protection=protection,
            words=(str(task.cell.seed), self._item.digest, task.policy.slug),
            box=self._setup.box,
        )

    def _rolled(self, task: Task, kept: Kept, scores: torch.Tensor) -> Rolled | None:
        """How a task goes on evicting while it decodes."""
        if self._setup.contract.evict is not EvictMode.DECODE:
            return None
        evictor = self._evictor(task)
        if int(kept.mask.sum(dim=-1).min()) != evictor.budget:
            raise PolicyProblem(evictor.name, EQUAL_BUDGETS)
        return Rolled(kept=kept, evictor=evictor, standing=evictor.standing(kept.mask, scores))

    def choose(self, task: Task, observing: float) -> Chosen:
        """What a task keeps; its seconds are those of observing, scoring and selecting.

        Raises:
            KvharnessError: the policy failed, or its budget cannot hold the sinks.
        """
        policy, cell, clock = task.policy.policy, task.cell, self._setup.runtime.clock
        if cell.policy == Anchor.FULL:
            return Chosen(task=task, kept=self._everything, seconds=0.0)
        budget, protection = self._held(task)
        with self._stranger(cell.policy):
            found = self._scored.get(cell.policy) or self._score(task)
            start = clock()
            mask = select_entries(
                policy, found.trace, found.scores, budget, protection, name=cell.policy
            )
            selecting = clock() - start
        # Only now: what it did wrong while scoring is of every retention.
        self._scored[cell.policy] = found
        kept = Kept(mask=mask, positions=policy.positions)
        _check_positions(kept, self._setup.runtime, cell.policy)
        rolled = self._rolled(task, kept, found.scores)
        seconds = observing + found.seconds + selecting
        return Chosen(task=task, kept=kept, seconds=seconds, rolled=rolled)

    def _score(self, task: Task) -> _Scored:
        slug, clock = task.policy.slug, self._setup.runtime.clock
        start = clock()
        words = (str(task.cell.seed), self._item.digest, slug)
        trace = self._trace.for_policy(task.policy.policy.needs, words)
        scores = score_tokens(task.policy.policy, trace, name=slug)
        return _Scored(trace=trace, scores=scores, seconds=clock() - start)

    @contextmanager
    def _stranger(self, name: str) -> Iterator[None]:
        """Run the code of a policy, which must leave the tensors that all share alone."""
        doing, problem = f"policy {name!r} on {self._item.name}", None
        before = self._watch(self._trace)
        try:
            with blamed(name), self._setup.box.during(doing), torch.no_grad():
                yield
        except KvharnessError as error:
            problem = error
        if self._watch(self._trace) != before:
            raise TamperedError(name)
        if problem is not None:
            raise problem


def _check_positions(kept: Kept, runtime: Runtime, name: str) -> None:
    if kept.positions is Positions.ORIGINAL:
        return
    counts = kept.mask.sum(dim=-1)
    if int(counts.min()) != int(counts.max()):
        raise PolicyProblem(name, "compact positions need equal budgets in all heads and layers")
    # Raises where the model's keys cannot be moved.
    _ = runtime.rotation
