"""Answering an item's questions from many evicted caches, as few batches as memory allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.nn.functional import pad

from kvharness.contract import QuestionMode
from kvharness.engine.decode import Prompt, force, greedy, packed_length, packs
from kvharness.errors import ModelProblem
from kvharness.model.evicted_cache import BatchCache
from kvharness.model.out_of_memory import LACKING, explained, is_lack, too_large
from kvharness.policy.view import Positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from kvharness.items.item import Question
    from kvharness.model.evicted_cache import Kept
    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from kvharness.model.rotary import Rotation
    from kvharness.records.record import Held

#: New tokens per forward pass when scoring: on a GPU they bound the activations' memory; on a
#: CPU they keep the activations in its caches.
_PASS_TOKENS = {"cuda": 32_768, "cpu": 1_024}
_ALONE = "decoding a single cell"
C = TypeVar("C")
A = TypeVar("A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one cell answered; lists run over the questions.

    Attributes:
        greedy: int64 ``[answer]``, the model's own choice at each reference token.
        logprob: float32 ``[answer]``, log-probability of each reference token.
        generated: token ids of generated replies; None where none was asked for.
        cache_bytes: measured bytes of the storage of the kept keys and values.
        seconds: the batch's wall time divided by its cells.
        held: what was held after evicting while decoding; None where nothing was.
    """

    greedy: list[Tensor]
    logprob: list[Tensor]
    generated: list[list[int] | None]
    cache_bytes: int
    seconds: float
    held: Held | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Questions to ask after one context.

    Attributes:
        context: the shared prefill.
        questions: asked independently of each other.
        layout: how much of the questions the context has; then there is one question.
        generate: how many of the questions, from the first, get generated text.
    """

    context: Prefilled
    questions: tuple[Question, ...]
    layout: QuestionMode
    generate: int

    @property
    def prompts(self) -> list[Prompt]:
        return [Prompt.of(question, self.layout) for question in self.questions]

    @property
    def last_bytes(self) -> int:
        """Of the last token's entries, if it is read once more and so stored behind the context."""
        if self.layout is not QuestionMode.PROMPT:
            return 0
        layers = self.context.layers.values()
        return sum(layer.keys[:, -1].nbytes + layer.values[:, -1].nbytes for layer in layers)

    @property
    def room(self) -> int:
        """New tokens a cache must hold: the packed prompts, or the longest reply."""
        replies = [
            len(prompt.lead) + question.max_new_tokens
            for prompt, question in zip(self.prompts, self.questions, strict=True)
        ]
        packed = max(packed_length(pack) for pack in packs(self.prompts))
        return max([packed, *replies[: self.generate]])


def score_in_full(
    runtime: Runtime, request: Request, kept: Kept, *, observe: bool
) -> tuple[Answers, dict[int, Tensor]]:
    """Score from the whole cache, alone, so that the reference never depends on a batch.

    Generates nothing. With ``observe``, also returns the attention that questions and answers
    pay to the context, float32 ``[H, n]`` by layer.
    """
    with explained(runtime.device, _ALONE):
        cache = _cache(request, [kept])
        cache.observing = observe
        (answers,) = _answer(runtime, replace(request, generate=0), cache)
    received = cache.received
    if request.layout is QuestionMode.PROMPT:
        # What is read once more attends to itself, and every policy keeps it.
        received = {layer: pad(each, (0, 1), value=1.0) for layer, each in received.items()}
    return answers, received


def _cache(request: Request, cells: Sequence[Kept], rotation: Rotation | None = None) -> BatchCache:
    """Of what each cell keeps; a prompt's last token is taken out, since it is read once more."""
    context = request.context
    if request.layout is QuestionMode.PROMPT:
        context = context.without_last()
        cells = [replace(cell, mask=cell.mask[..., :-1]) for cell in cells]
    return BatchCache(context, cells, room=request.room, rotation=rotation)


def answer(runtime: Runtime, request: Request, cells: Sequence[Kept]) -> list[Answers]:
    """`answer_each`, where every cell must fit.

    Raises:
        ModelProblem: one of them does not.
    """
    answers: list[Answers] = []
    for each in answer_each(runtime, request, cells):
        if isinstance(each, ModelProblem):
            raise each
        answers.append(each)
    return answers


def answer_each(
    runtime: Runtime, request: Request, cells: Sequence[Kept]
) -> list[Answers | ModelProblem]:
    """Answer from every cell, in the order given; caches of equal length lie side by side.

    A cell whose cache does not fit even alone gets the problem in place of its answers.
    """
    order = sorted(range(len(cells)), key=lambda i: (cells[i].total, i))
    limit = cache_entries(runtime, request.context)
    answers: dict[int, Answers | ModelProblem] = {}
    for members in parts(request, [cells[i].total for i in order], limit):
        chosen = [order[i] for i in members]
        batch = [cells[i] for i in chosen]
        results = halving(runtime, batch, partial(_answer_batch, runtime, request))
        answers.update(zip(chosen, results, strict=True))
    return [answers[i] for i in range(len(cells))]


def cache_entries(runtime: Runtime, context: Prefilled) -> int:
    """Entries (a key and a value of one head) that a batch may hold."""
    first = next(iter(context.layers.values()))
    entry = first.keys.shape[-1] + first.values.shape[-1]
    return runtime.memory() // (entry * first.keys.element_size())


def parts(request: Request, totals: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Cells in order, as many together as their entries and what is read allow: at least one."""
    layers = request.context.layers
    rows = len(layers) * next(iter(layers.values())).keys.shape[0]
    batch: list[int] = []
    size = 0
    for index, total in enumerate(totals):
        need = total + rows * request.room
        if batch and size + need > limit:
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += need
    if batch:
        yield batch


def halving(
    runtime: Runtime, cells: Sequence[C], answer: Callable[[Sequence[C]], list[A]]
) -> list[A | ModelProblem]:
    """Answer a batch; where memory runs out, answer its halves."""
    try:
        return [*answer(cells)]
    except LACKING as error:
        if not is_lack(error):
            raise
    # Outside the except block: the error keeps the failed batch's tensors alive.
    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()
    if len(cells) == 1:
        return [too_large(runtime.device, _ALONE)]
    middle = len(cells) // 2
    head = halving(runtime, cells[:middle], answer)
    return head + halving(runtime, cells[middle:], answer)


def _answer_batch(runtime: Runtime, request: Request, cells: Sequence[Kept]) -> list[Answers]:
    moved = any(cell.positions is Positions.COMPACT for cell in cells)
    start = runtime.clock()
    rotation = runtime.rotation if moved else None
    cache = _cache(request, cells, rotation)
    share = (runtime.clock() - start) / len(cells)
    answers = _answer(runtime, request, cache)
    return [replace(each, seconds=each.seconds + share) for each in answers]


def _answer(runtime: Runtime, request: Request, cache: BatchCache) -> list[Answers]:
    start = runtime.clock()
    prompts = request.prompts
    most = _PASS_TOKENS[runtime.device.type]
    forced = force(runtime.model, cache, prompts, most_tokens=most)
    # What the model generates is not the true answer: it must not reach the oracle.
    cache.observing = False
    count = len(cache.cells)
    replies: list[list[list[int] | None]] = [[None] * len(prompts) for _ in range(count)]
    for index in range(min(request.generate, len(prompts))):
        # After `force` the cache holds the first prompt's lead; other prompts are read again.
        led = force(runtime.model, cache, [prompts[index]], most_tokens=most) if index else forced
        rows = greedy(
            runtime.model,
            cache,
            [int(cell[0][0]) for cell in led.greedy],
            max_new_tokens=request.questions[index].max_new_tokens,
            stop=runtime.stop,
        )
        for cell, row in enumerate(rows):
            replies[cell][index] = row
    seconds = (runtime.clock() - start) / count
    sizes = [size + request.last_bytes for size in cache.cell_bytes()]
    return [
        Answers(
            greedy=forced.greedy[cell],
            logprob=forced.logprob[cell],
            generated=replies[cell],
            cache_bytes=sizes[cell],
            seconds=seconds,
        )
        for cell in range(count)
    ]
