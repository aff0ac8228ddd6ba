"""From items to records: one prefill an item, every cell of the group from that prefill."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import torch

from kvharness.batch import Request, answer_each, score_in_full
from kvharness.blackbox import BlackBox
from kvharness.blame import blamed
from kvharness.blockwise import read_each
from kvharness.cache import Kept, Prefilled
from kvharness.contract import Anchor, EvictMode, QuestionMode
from kvharness.errors import KvharnessError, PolicyProblem
from kvharness.eviction import EQUAL_BUDGETS, Evictor
from kvharness.policy import Needs, Positions
from kvharness.record import Seconds
from kvharness.rolling import Rolled, roll_each
from kvharness.scoring import Scored, evidence_share, merge_record, score_question
from kvharness.select import informed_policy, mask_digest, score_tokens, select_entries
from kvharness.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from kvharness.batch import Answers
    from kvharness.blockwise import BlockRead
    from kvharness.cell import Cell
    from kvharness.contract import Contract
    from kvharness.item import Item, Question
    from kvharness.policy import Policy
    from kvharness.record import Record
    from kvharness.registry import LoadedPolicy
    from kvharness.runtime import Runtime


class Generate(StrEnum):
    """For which questions of an item text is generated."""

    FIRST = "first"
    ALL = "all"
    NONE = "none"

    def replies(self, questions: int) -> int:
        """How many of so many questions get generated text."""
        return {Generate.FIRST: 1, Generate.ALL: questions, Generate.NONE: 0}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One cell to run on one item, with the key its record gets."""

    cell: Cell
    policy: LoadedPolicy
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A cell that could not be run on an item, and why."""

    cell: Cell
    reason: str


class TamperedError(Exception):
    """A policy wrote into the tensors of its view, which other policies see as well."""

    def __init__(self, policy: str) -> None:
        super().__init__(
            f"policy {policy!r}: it changed the tensors of its view in place; they are shared, so "
            f"work on a copy (tensor.clone())"
        )
        self.policy = policy


class ChangedBehindError(Exception):
    """Some policy wrote into shared tensors in a way that torch does not count (``.data``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a group is run with.

    ``score_name`` is the suite's headline metric; ``keep_mask`` is given each mask with its
    digest; ``box`` says which policy runs.
    """

    runtime: Runtime
    contract: Contract
    generate: Generate
    score_name: str
    keep_mask: Callable[[str, Tensor], None] | None = None
    box: BlackBox = field(default_factory=BlackBox)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What one task keeps of one context.

    Attributes:
        seconds: to probe, score and select.
        rolled: how it goes on, where policies evict while decoding.
        read: what it read in blocks, where the context is read so; prefill and selection are one.
    """

    task: Task
    kept: Kept
    seconds: float
    rolled: Rolled | None = None
    read: BlockRead | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """One context to prefill, with the questions asked after it."""

    context: tuple[int, ...]
    questions: tuple[Question, ...]


def run_item(setup: Setup, item: Item, tasks: Sequence[Task]) -> Iterator[Record | Failure]:
    """Run tasks on one item: a record for each, or the reason why there is none.

    A task's keep mask never depends on which other tasks run beside it; its outputs do only as
    far as batched arithmetic rounds differently.
    """
    parts: dict[str, list[Scored]] = defaultdict(list)
    failures: dict[str, Failure] = {}
    for one in _passes(item, setup.contract):
        for task, result in _run_untampered(setup, item, one, tasks, failures):
            if isinstance(result, Failure):
                failures[task.key] = result
            else:
                parts[task.key].append(result)
    for task in tasks:
        if task.key in failures:
            yield failures[task.key]
        else:
            name = setup.score_name
            yield merge_record(task.cell, task.key, item, parts[task.key], score_name=name)


def _run_untampered(
    setup: Setup,
    item: Item,
    one: _Pass,
    tasks: Sequence[Task],
    failures: dict[str, Failure],
) -> list[tuple[Task, Scored | Failure]]:
    """Run a pass, and run it again without a policy that spoiled the others' tensors."""
    watch = _versions
    while True:
        left = [task for task in tasks if task.key not in failures]
        try:
            return list(_run_pass(setup, item, one, left, watch))
        except ChangedBehindError:
            watch = _contents
        except TamperedError as problem:
            for task in left:
                if task.policy.slug == problem.policy:
                    failures[task.key] = Failure(cell=task.cell, reason=str(problem))


def _passes(item: Item, contract: Contract) -> list[_Pass]:
    """One pass for all questions, or one for each question when it is seen at compression."""
    if contract.question is QuestionMode.UNSEEN:
        return [_Pass(context=item.context, questions=item.questions)]
    return [
        _Pass(context=(*item.context, *question.question), questions=(question,))
        for question in item.questions
    ]


def _run_pass(
    setup: Setup,
    item: Item,
    one: _Pass,
    tasks: Sequence[Task],
    watch: Callable[[Trace], list[int]],
) -> Iterator[tuple[Task, Scored | Failure]]:
    needs = Needs()
    for task in tasks:
        needs = needs.union(task.policy.policy.needs)
    prefilled, prefill_seconds = setup.runtime.prefill(one.context, needs)
    request = _request(setup, prefilled, one)
    everything = Kept(mask=prefilled.all_kept())
    full, future = score_in_full(setup.runtime, request, everything, observe=needs.future)
    trace = _trace(prefilled, future)
    before = _contents(trace)
    selector = _Selector(setup, item, trace, everything, watch)
    choices: list[_Choice] = []
    chosen = selector.choose_each(tasks, prefilled)
    if setup.contract.evict is EvictMode.BLOCKS:
        chosen = selector.read_each(tasks, request, one.context, future)
    for task, choice in chosen:
        if isinstance(choice, KvharnessError):
            yield task, Failure(cell=task.cell, reason=str(choice))
        else:
            choices.append(choice)
    if watch is not _contents and _contents(trace) != before:
        raise ChangedBehindError
    answers = _answers(setup.runtime, request, choices, future)
    for choice, batched in zip(choices, answers, strict=True):
        if isinstance(batched, KvharnessError):
            yield choice.task, Failure(cell=choice.task.cell, reason=str(batched))
            continue
        alone = replace(full, generated=batched.generated, seconds=batched.seconds)
        mine = alone if choice.kept is everything else batched
        yield choice.task, _score(setup, request, choice, mine, full, prefill_seconds)


def _answers(
    runtime: Runtime,
    request: Request,
    choices: Sequence[_Choice],
    future: Sequence[torch.Tensor] | None,
) -> list[Answers | KvharnessError]:
    """What each choice answers, in their order: together, on the way, or from its own context."""
    plain = [c.kept for c in choices if c.rolled is None and c.read is None]
    rolled = [c.rolled for c in choices if c.rolled is not None]
    together = iter(answer_each(runtime, request, plain))
    on_the_way = iter(roll_each(runtime, request, rolled, future))
    answers: list[Answers | KvharnessError] = []
    for choice in choices:
        if choice.read is not None:
            own = replace(request, context=choice.read.context)
            answers += answer_each(runtime, own, [choice.kept])
        else:
            answers.append(next(together if choice.rolled is None else on_the_way))
    return answers


def _request(setup: Setup, prefilled: Prefilled, one: _Pass) -> Request:
    return Request(
        context=prefilled,
        questions=one.questions,
        seen=setup.contract.question is QuestionMode.SEEN,
        generate=setup.generate.replies(len(one.questions)),
    )


def _trace(prefilled: Prefilled, future: Sequence[torch.Tensor] | None) -> Trace:
    layers = tuple(prefilled.layers.values())
    positions = torch.arange(prefilled.tokens, device=layers[0].keys.device)
    trace = Trace(
        layers=layers, positions=positions, needs=Needs(), boundaries=prefilled.boundaries
    )
    return trace if future is None else trace.with_future(future)


class _Selector:
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
        self._scores: dict[str, tuple[Policy, torch.Tensor, float]] = {}

    def choose_each(
        self, tasks: Sequence[Task], prefilled: Prefilled
    ) -> Iterator[tuple[Task, _Choice | KvharnessError]]:
        """What each task keeps of the prefilled context, or why it cannot say."""
        for task in tasks:
            try:
                probing = prefilled.probe_seconds(task.policy.policy.needs)
                yield task, self.choose(task, probing)
            except KvharnessError as error:
                yield task, error

    def read_each(
        self,
        tasks: Sequence[Task],
        request: Request,
        context: Sequence[int],
        future: Sequence[torch.Tensor] | None,
    ) -> Iterator[tuple[Task, _Choice | KvharnessError]]:
        """What each task keeps of a context that it reads in blocks, or why it does not."""
        reading = []
        for task in tasks:
            try:
                if task.cell.policy == Anchor.FULL:
                    yield task, _Choice(task=task, kept=self._everything, seconds=0.0)
                else:
                    reading.append((task, self._evictor(task)))
            except KvharnessError as error:
                yield task, error
        evictors = [evictor for _, evictor in reading]
        read = read_each(self._setup.runtime, request, context, evictors, future)
        for (task, _), each in zip(reading, read, strict=True):
            if isinstance(each, KvharnessError):
                yield task, each
            else:
                yield task, _Choice(task=task, kept=each.kept, seconds=0.0, read=each)

    def _evictor(self, task: Task) -> Evictor:
        budget = task.cell.budget(self._trace.tokens, self._setup.contract)
        return Evictor(
            name=task.policy.slug,
            policy=task.policy.policy,
            budget=budget,
            protection=self._setup.contract.protection.fit(budget),
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

    def choose(self, task: Task, probing: float) -> _Choice:
        """What a task keeps; its seconds are those of probing, scoring and selecting.

        Raises:
            KvharnessError: the policy failed, or its budget cannot hold the sinks.
        """
        policy, cell, clock = task.policy.policy, task.cell, self._setup.runtime.clock
        if cell.policy == Anchor.FULL:
            return _Choice(task=task, kept=self._everything, seconds=0.0)
        budget = cell.budget(self._trace.tokens, self._setup.contract)
        protection = self._setup.contract.protection.fit(budget)
        with self._stranger(cell.policy):
            informed, scores, scoring = self._scores.get(cell.policy) or self._score(task)
            start = clock()
            mask = select_entries(informed, scores, budget, protection, cell.policy)
            selecting = clock() - start
        # Only now: what it did wrong while scoring is of every retention.
        self._scores[cell.policy] = (informed, scores, scoring)
        kept = Kept(mask=mask, positions=policy.positions)
        _check_positions(kept, self._setup.runtime, cell.policy)
        rolled = self._rolled(task, kept, scores)
        seconds = probing + scoring + selecting
        return _Choice(task=task, kept=kept, seconds=seconds, rolled=rolled)

    def _score(self, task: Task) -> tuple[Policy, torch.Tensor, float]:
        slug, clock = task.policy.slug, self._setup.runtime.clock
        start = clock()
        words = (str(task.cell.seed), self._item.digest, slug)
        view = self._trace.for_policy(task.policy.policy.needs, words)
        scores = score_tokens(task.policy.policy, view, name=slug)
        informed = informed_policy(task.policy.policy, view, name=slug)
        return informed, scores, clock() - start

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


def _shared(trace: Trace) -> Iterator[torch.Tensor]:
    """The tensors that every policy sees."""
    yield trace.positions
    if trace.boundaries is not None:
        yield trace.boundaries
    for layer in trace.layers:
        for _, tensor in layer.tensors():
            yield tensor


def _versions(trace: Trace) -> list[int]:
    """Torch's counters of in-place changes: free, so each policy is watched by them."""
    return [tensor._version for tensor in _shared(trace)]  # noqa: SLF001 - it has no public name


def _contents(trace: Trace) -> list[int]:
    """Sums over the bits, for changes that torch does not count."""
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return [
        int(tensor.detach().view(kinds[tensor.element_size()]).sum()) for tensor in _shared(trace)
    ]


def _check_positions(kept: Kept, runtime: Runtime, name: str) -> None:
    if kept.positions is Positions.ORIGINAL:
        return
    counts = kept.mask.sum(dim=-1)
    if int(counts.min()) != int(counts.max()):
        raise PolicyProblem(name, "compact positions need equal budgets in all heads and layers")
    # Raises where the model's keys cannot be moved.
    _ = runtime.rotation


def _score(
    setup: Setup,
    request: Request,
    choice: _Choice,
    answers: Answers,
    full: Answers,
    prefill_seconds: float,
) -> Scored:
    mask, encoder = choice.kept.mask, setup.runtime.encoder
    digest = mask_digest(mask)
    if setup.keep_mask is not None:
        setup.keep_mask(digest, mask)
    questions = []
    for index, question in enumerate(request.questions):
        record = score_question(question, index, answers, full, encoder)
        questions.append(replace(record, evidence_kept=evidence_share(mask, question.evidence)))
    spans = [span for question in request.questions for span in question.evidence]
    return Scored(
        questions=tuple(questions),
        evidence_kept=evidence_share(mask, spans),
        kept=tuple(mask.sum(dim=(1, 2)).tolist()),
        tokens=request.context.tokens,
        realised_retention=choice.kept.total / mask.numel(),
        cache_bytes=answers.cache_bytes,
        mask_digest=digest,
        seconds=Seconds(
            prefill=prefill_seconds if choice.read is None else choice.read.seconds,
            select=choice.seconds,
            decode=answers.seconds,
        ),
        held=answers.held,
    )
