"""Reading several evicted caches at once: teacher-forced scoring, then greedy decoding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from kvharness.contract import QuestionMode
from kvharness.model.attention import reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.items.item import Question
    from kvharness.model.evicted_cache import BatchCache


#: Tokens of prompts that share a row. Each attends to the whole row and masks what belongs to
#: others, so long rows waste attention: on the embedded model 128 beat 256 and 64.
_PACK_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Token ids of one question as they follow the cache: ``lead`` and then the answer."""

    lead: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """What the model reads; the answer's last token is only predicted."""
        return (*self.lead, *self.answer[:-1])

    @classmethod
    def of(cls, question: Question, layout: QuestionMode) -> Prompt:
        """What is left to read of a question after what the layout has in the cache."""
        whole = (*question.question, *question.tail)
        leads = {QuestionMode.SEEN: question.tail, QuestionMode.PROMPT: whole[-1:]}
        return cls(lead=leads.get(layout, whole), answer=question.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """Teacher-forced answers of a batch: lists over cells, then over questions.

    Attributes:
        greedy: int64 ``[answer]``, the model's own choice at each answer token.
        logprob: float32 ``[answer]``, log-probability of the reference token.
    """

    greedy: list[list[Tensor]]
    logprob: list[list[Tensor]]

    def extend(self, logits: Tensor, prompts: Sequence[Prompt]) -> None:
        """Add cells from their logits ``[cells, answers, vocabulary]``."""
        answers = torch.tensor([token for prompt in prompts for token in prompt.answer])
        lengths = [len(prompt.answer) for prompt in prompts]
        targets = answers.to(logits.device)[:, None]
        # Cell by cell: a batch of float32 log-probabilities over the vocabulary would be the
        # largest tensor of the run.
        for cell in logits:
            wide = cell.float()
            logprob = wide.gather(1, targets)[:, 0] - wide.logsumexp(dim=-1)
            self.greedy.append(list(cell.argmax(dim=-1).cpu().split(lengths)))
            self.logprob.append(list(logprob.cpu().split(lengths)))


def packed_length(prompts: Sequence[Prompt]) -> int:
    return sum(len(prompt.tokens) for prompt in prompts)


def packs(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    """The prompts in order, as many together as fit the pack size: at least one."""
    parts: list[list[Prompt]] = []
    for prompt in prompts:
        if parts and packed_length([*parts[-1], prompt]) <= _PACK_TOKENS:
            parts[-1].append(prompt)
        else:
            parts.append([prompt])
    return parts


def force(
    model: PreTrainedModel, cache: BatchCache, prompts: Sequence[Prompt], *, most_tokens: int
) -> Forced:
    """Score every prompt's answer against every cell of the cache.

    Prompts lie side by side in packs; each sees the context and itself, at the positions it
    would have alone, so the result is that of asking them one after the other and dropping
    each one's entries before the next. Cells go through the model in parts of ``most_tokens``
    tokens. Afterwards the cache holds the first prompt's lead.
    """
    forced = [_force_pack(model, cache, pack, most_tokens) for pack in reversed(packs(prompts))]
    cache.used = len(prompts[0].lead)
    parts = list(reversed(forced))
    cells = range(len(cache.cells))
    return Forced(
        greedy=[[row for part in parts for row in part.greedy[cell]] for cell in cells],
        logprob=[[row for part in parts for row in part.logprob[cell]] for cell in cells],
    )


def _force_pack(
    model: PreTrainedModel, cache: BatchCache, prompts: Sequence[Prompt], most_tokens: int
) -> Forced:
    tokens = torch.tensor([token for prompt in prompts for token in prompt.tokens])
    lengths = [len(prompt.tokens) for prompt in prompts]
    starts = [0, *accumulate(lengths)][:-1]
    offsets = torch.cat([torch.arange(length) for length in lengths])
    owner = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(lengths))
    order = torch.arange(len(tokens))
    visible = (owner[:, None] == owner[None, :]) & (order[:, None] >= order[None, :])
    predicting = torch.cat(
        [
            start + len(prompt.lead) - 1 + torch.arange(len(prompt.answer))
            for start, prompt in zip(starts, prompts, strict=True)
        ]
    )
    cache.used = 0
    cache.expect(offsets, visible)
    forced = Forced(greedy=[], logprob=[])
    count, step = len(cache.cells), max(1, most_tokens // len(tokens))
    for start in range(0, count, step):
        cache.active = slice(start, min(start + step, count))
        rows = tokens.expand(cache.active.stop - start, -1)
        forced.extend(_forward(model, cache, rows, offsets, predicting), prompts)
    cache.active = slice(0, count)
    return forced


def greedy(
    model: PreTrainedModel,
    cache: BatchCache,
    first: Sequence[int],
    *,
    max_new_tokens: int,
    stop: frozenset[int],
) -> list[list[int]]:
    """Greedy continuations of the lead that the cache holds, one for each cell.

    Args:
        model: an observed model.
        cache: left as `force` leaves it.
        first: the first generated token of each cell, from `Forced.greedy`.
        max_new_tokens: longest continuation.
        stop: tokens that end one; not part of the result.
    """
    rows = [[token] for token in first]
    for _ in range(max_new_tokens - 1):
        if all(stop.intersection(row) for row in rows):
            break
        offset = torch.tensor([cache.used])
        cache.expect(offset, None)
        last = torch.tensor([[row[-1]] for row in rows])
        logits = _forward(model, cache, last, offset, torch.tensor([0]))
        cache.used += 1
        for row, token in zip(rows, logits[:, 0].argmax(dim=-1).tolist(), strict=True):
            row.append(token)
    return [before_stop(row, stop) for row in rows]


def before_stop(row: list[int], stop: frozenset[int]) -> list[int]:
    ends = [index for index, token in enumerate(row) if token in stop]
    return row[: ends[0]] if ends else row


def _forward(
    model: PreTrainedModel, cache: BatchCache, rows: Tensor, offsets: Tensor, keep: Tensor
) -> Tensor:
    """Logits ``[cells, len(keep), vocabulary]`` at the kept indices of the new tokens."""
    bases = torch.tensor([cell.next_position() for cell in cache.cells[cache.active]])
    with torch.no_grad(), reading(cache):
        output = model(
            input_ids=rows.to(model.device),
            position_ids=(bases[:, None] + offsets[None, :]).to(model.device),
            use_cache=False,
            logits_to_keep=keep.to(model.device),
        )
    logits: Tensor = output.logits
    return logits
