"""From items to records: one prefill an item, every cell of the group from that prefill."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from kvharness.contract import EvictMode, QuestionMode
from kvharness.engine.answer import Request, answer_each, score_in_full
from kvharness.engine.guarded import guarded
from kvharness.engine.rolling_decode import roll_each
from kvharness.engine.score import Scored, evidence_share, merge_record, score_question
from kvharness.engine.select import mask_digest
from kvharness.engine.selector import Chosen, Selector
from kvharness.engine.task import Failure, Setup, Task
from kvharness.errors import KvharnessError
from kvharness.isolation.tampering import ChangedBehindError, TamperedError, contents, versions
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import Kept
from kvharness.policy.observation.base import Observation
from kvharness.policy.observation.reading import Ahead
from kvharness.policy.trace import Trace
from kvharness.records.record import Seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kvharness.contract import Contract
    from kvharness.engine.answer import Answers
    from kvharness.items.item import Item, Question
    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from kvharness.records.record import Record


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
    watch = versions
    while True:
        left = [task for task in tasks if task.key not in failures]
        try:
            return list(_run_pass(setup, item, one, left, watch))
        except ChangedBehindError:
            watch = contents
        except TamperedError as problem:
            for task in left:
                if task.policy.slug == problem.policy:
                    failures[task.key] = Failure(cell=task.cell, reason=str(problem))


def _passes(item: Item, contract: Contract) -> list[_Pass]:
    """One pass for all questions, or one for each question that is in the cache."""
    if contract.question is QuestionMode.UNSEEN:
        return [_Pass(context=item.context, questions=item.questions)]
    whole = contract.question is QuestionMode.PROMPT
    return [
        _Pass(
            context=(*item.context, *each.question, *(each.tail if whole else ())),
            questions=(each,),
        )
        for each in item.questions
    ]


def _run_pass(
    setup: Setup,
    item: Item,
    one: _Pass,
    tasks: Sequence[Task],
    watch: Callable[[Trace], list[int]],
) -> Iterator[tuple[Task, Scored | Failure]]:
    needs = frozenset[Observation[Any]]().union(*(task.policy.policy.needs for task in tasks))
    reference = _Reference(setup, one)
    prefilled, prefill_seconds = prefill(
        setup.runtime,
        one.context,
        needs,
        ahead=reference.ahead,
        guard=partial(guarded, setup.box, item.name),
    )
    request, everything = _request(setup, prefilled, one), Kept(mask=prefilled.all_kept())
    full = reference.answers(prefilled)
    trace = _trace(prefilled)
    before = contents(trace)
    selector = Selector(setup, item, trace, everything, watch)
    choices: list[Chosen] = []
    if setup.contract.evict is EvictMode.BLOCKS:
        chosen = selector.read_each(tasks, request, one.context)
    else:
        chosen = selector.choose_each(tasks, prefilled)
    for task, choice in chosen:
        if isinstance(choice, KvharnessError):
            yield task, Failure(cell=task.cell, reason=str(choice))
        else:
            choices.append(choice)
    if watch is not contents and contents(trace) != before:
        raise ChangedBehindError
    answers = _answers(setup.runtime, request, choices)
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
    choices: Sequence[Chosen],
) -> list[Answers | KvharnessError]:
    """What each choice answers, in their order: together, on the way, or from its own context."""
    plain = [c.kept for c in choices if c.rolled is None and c.read is None]
    rolled = [c.rolled for c in choices if c.rolled is not None]
    together = iter(answer_each(runtime, request, plain))
    on_the_way = iter(roll_each(runtime, request, rolled))
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
        layout=setup.contract.question,
        generate=setup.generate.replies(len(one.questions)),
    )


class _Reference:
    """What the whole cache answers, which is scored once: with what it attends to, if asked."""

    def __init__(self, setup: Setup, one: _Pass) -> None:
        self._setup = setup
        self._one = one
        self._answers: Answers | None = None

    def ahead(self, prefilled: Prefilled) -> Ahead:
        """What follows in truth: only oracles ask for it."""
        attention = self._score(prefilled, observe=True)
        prompts = _request(self._setup, prefilled, self._one).prompts
        return Ahead(prompts=tuple(prompt.tokens for prompt in prompts), attention=attention)

    def answers(self, prefilled: Prefilled) -> Answers:
        if self._answers is None:
            self._score(prefilled, observe=False)
        assert self._answers is not None  # noqa: S101 - scored above
        return self._answers

    def _score(self, prefilled: Prefilled, *, observe: bool) -> Mapping[int, torch.Tensor]:
        request = _request(self._setup, prefilled, self._one)
        everything = Kept(mask=prefilled.all_kept())
        self._answers, received = score_in_full(
            self._setup.runtime, request, everything, observe=observe
        )
        return received


def _trace(prefilled: Prefilled) -> Trace:
    layers = tuple(prefilled.layers.values())
    return Trace(
        layers=layers, positions=torch.arange(prefilled.tokens, device=layers[0].keys.device)
    )


def _score(
    setup: Setup,
    request: Request,
    choice: Chosen,
    answers: Answers,
    full: Answers,
    prefill_seconds: float,
) -> Scored:
    mask, decode = choice.kept.mask, setup.runtime.encoder.text
    digest = mask_digest(mask)
    if setup.keep_mask is not None:
        setup.keep_mask(digest, mask)
    questions = []
    for index, question in enumerate(request.questions):
        record = score_question(question, index, answers, full, decode)
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
