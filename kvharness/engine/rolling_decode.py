"""Decoding from caches that stay at their budget: after each token each policy evicts again."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from kvharness.contract import QuestionMode
from kvharness.engine.answer import Answers, cache_entries, halving, parts
from kvharness.engine.decode import before_stop
from kvharness.engine.evictor import cut_back
from kvharness.engine.guarded import guarded_step
from kvharness.model.attention import reading
from kvharness.model.rolling_cache import HeldCache
from kvharness.policy.observation.base import Observation
from kvharness.policy.view import Positions
from kvharness.records.record import Held

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from kvharness.engine.answer import Request
    from kvharness.engine.decode import Prompt
    from kvharness.engine.evictor import Evictor, Standing
    from kvharness.errors import KvharnessError
    from kvharness.model.evicted_cache import Kept
    from kvharness.model.loaded import Runtime
    from kvharness.policy.observation.base import Observations

#: Cells of one forward pass: their caches are gathered anew after each token.
_MOST_CELLS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """A cell as it starts: what it kept of the context, and how it goes on."""

    kept: Kept
    evictor: Evictor
    standing: Standing

    @property
    def total(self) -> int:
        return self.kept.total


@dataclass(slots=True, kw_only=True)
class Rollout:
    """Several cells of one budget that read on together."""

    runtime: Runtime
    cache: HeldCache
    evictors: Sequence[Evictor]
    standings: list[Standing]
    held: Held = field(default_factory=Held)

    @classmethod
    def start(
        cls,
        runtime: Runtime,
        request: Request,
        cells: Sequence[Rolled],
    ) -> Rollout:
        """From a compressed context."""
        kind = cells[0].kept.positions
        cache = HeldCache(
            len(cells),
            needs=together(cell.evictor for cell in cells),
            kind=kind,
            rotation=runtime.rotation if kind is Positions.COMPACT else None,
            whole=request.context,
            guard=partial(guarded_step, cells[0].evictor.box),
        )
        cache.hold(request.context, [cell.kept.mask for cell in cells])
        if request.layout is QuestionMode.PROMPT:
            cache.take_back_last()
        return cls(
            runtime=runtime,
            cache=cache,
            evictors=[cell.evictor for cell in cells],
            standings=[cell.standing for cell in cells],
        )

    def fork(self) -> Rollout:
        return replace(self, cache=self.cache.fork(), standings=[*self.standings])

    def read(self, tokens: Tensor, *, evict: bool = True) -> Tensor:
        """Logits ``[cells, vocabulary]`` after int64 ``[cells, t]``; then every cell evicts."""
        model, cells = self.runtime.model, len(tokens)
        positions = self.cache.expect(tokens.shape[1]).expand(cells, -1)
        with torch.no_grad(), reading(self.cache):
            output = model(
                input_ids=tokens.to(model.device),
                position_ids=positions.to(model.device),
                use_cache=False,
                logits_to_keep=1,
            )
        if evict:
            self.standings = cut_back(self.cache, self.evictors, self.standings)
        self.held = self.held.and_then(*self.cache.counts())
        logits: Tensor = output.logits[:, -1]
        return logits


def together(evictors: Iterator[Evictor]) -> Observations:
    """What the policies of several cells need."""
    return frozenset[Observation[Any]]().union(*(each.policy.needs for each in evictors))


def roll_each(
    runtime: Runtime,
    request: Request,
    cells: Sequence[Rolled],
) -> list[Answers | KvharnessError]:
    """Answer from every cell, in the order given; cells of one budget go together.

    A cell that fails gets the problem in place of its answers.
    """
    alike: dict[tuple[int, int, Positions], list[int]] = defaultdict(list)
    for index, cell in enumerate(cells):
        alike[cell.evictor.budget, cell.total, cell.kept.positions].append(index)
    answers: dict[int, Answers | KvharnessError] = {}
    limit = cache_entries(runtime, request.context)
    for members in alike.values():
        for part in parts(request, [cells[i].total for i in members], limit):
            for start in range(0, len(part), _MOST_CELLS):
                chosen = [members[i] for i in part[start : start + _MOST_CELLS]]
                roll = partial(_roll, runtime, request)
                batch = halving(runtime, [cells[i] for i in chosen], roll)
                answers.update(zip(chosen, batch, strict=True))
    return [answers[index] for index in range(len(cells))]


def _roll(
    runtime: Runtime,
    request: Request,
    cells: Sequence[Rolled],
) -> list[Answers | KvharnessError]:
    start = runtime.clock()
    told = [Answers(greedy=[], logprob=[], generated=[], cache_bytes=0, seconds=0) for _ in cells]
    problems: dict[int, KvharnessError] = {}
    held, size = Held(), 0
    pairs = zip(request.prompts, request.questions, strict=True)
    for index, (prompt, question) in enumerate(pairs):
        rollout = Rollout.start(runtime, request, cells)
        # The last token of a prompt was chosen from already: it takes its own place again.
        chosen = request.layout is QuestionMode.PROMPT
        lead = torch.tensor(prompt.lead).expand(len(cells), -1)
        logits = rollout.read(lead, evict=not chosen)
        runs = [rollout]
        replies: list[list[int] | None] = [None] * len(cells)
        if index < request.generate:
            runs.append(rollout.fork())
            replies = [*greedy(runs[1], logits, question.max_new_tokens, runtime.stop)]
        force(rollout, logits, prompt, told)
        for cell, reply in enumerate(replies):
            told[cell].generated.append(reply)
        for run in runs:
            held, size = held.beside(run.held), run.cache.cell_bytes()
            problems |= {c: s.problem for c, s in enumerate(run.standings) if s.problem is not None}
    seconds = (runtime.clock() - start) / len(cells)
    return [
        problems.get(cell) or replace(each, cache_bytes=size, seconds=seconds, held=held)
        for cell, each in enumerate(told)
    ]


def force(rollout: Rollout, logits: Tensor, prompt: Prompt, told: Sequence[Answers]) -> None:
    """Score a reference answer token by token, and add it to what each cell has told."""
    greedy_choice, logprob = [], []
    for number, token in enumerate(prompt.answer):
        if number:
            logits = rollout.read(torch.full((len(told), 1), prompt.answer[number - 1]))
        wide = logits.float()
        greedy_choice.append(logits.argmax(dim=-1).cpu())
        logprob.append((wide[:, token] - wide.logsumexp(dim=-1)).cpu())
    for each, choices, numbers in zip(
        told, torch.stack(greedy_choice, dim=1), torch.stack(logprob, dim=1), strict=True
    ):
        each.greedy.append(choices)
        each.logprob.append(numbers)


def greedy(
    rollout: Rollout, logits: Tensor, most: int, stop: frozenset[int]
) -> Iterator[list[int]]:
    """Greedy replies, one for each cell; the stop token is not part of them."""
    rows = [[token] for token in logits.argmax(dim=-1).tolist()]
    for _ in range(most - 1):
        if all(stop.intersection(row) for row in rows):
            break
        logits = rollout.read(torch.tensor([[row[-1]] for row in rows]))
        for row, token in zip(rows, logits.argmax(dim=-1).tolist(), strict=True):
            row.append(token)
    for row in rows:
        yield before_stop(row, stop)
