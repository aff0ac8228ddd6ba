"""Measuring speed honestly: ratios within one run, with equal outputs checked."""

from __future__ import annotations

import ctypes
import resource
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from kvharness.contract import Protection, QuestionMode, budget_of
from kvharness.engine.answer import Request, answer
from kvharness.engine.select import keep_mask
from kvharness.items.item import Question
from kvharness.model.attention import KERNEL
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import Kept
from kvharness.policy.observation.base import Observation
from kvharness.policy.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from fractions import Fraction

    from torch import Tensor

    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from kvharness.policy.observation.base import Observations

PROTECTION = Protection(sinks=4, recents=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One context, one question and the cells to answer it from.

    Attributes:
        context: token ids to prefill.
        question: token ids that follow the context.
        cells: policy and retention of each cell.
        steps: greedy tokens to generate.
        protection: the contract's; policies of other libraries know none.
    """

    context: tuple[int, ...]
    question: tuple[int, ...]
    cells: tuple[tuple[LoadedPolicy, Fraction], ...]
    steps: int
    protection: Protection = PROTECTION

    @property
    def needs(self) -> Observations:
        return frozenset[Observation[Any]]().union(
            *(loaded.policy.needs for loaded, _ in self.cells)
        )


@dataclass(slots=True, kw_only=True)
class Measured:
    """Outputs of every cell, wall seconds, and the peak of additional memory in bytes."""

    outputs: list[list[int]] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0


def by_engine(runtime: Runtime, grid: Grid) -> Measured:
    """The grid the harness's way: one prefill, all cells decoded together."""
    with measuring(runtime) as measured:
        prefilled, _ = prefill(runtime, grid.context, grid.needs)
        cells = [choose(prefilled, *cell, protection=grid.protection) for cell in grid.cells]
        answers = answer(runtime, request(prefilled, grid.question, grid.steps), cells)
        measured.outputs = [each.generated[0] or [] for each in answers]
    return measured


def cell_by_cell(runtime: Runtime, grid: Grid) -> Measured:
    """The grid the ordinary way: prefill for each cell, then transformers' own cache and loop."""
    with measuring(runtime) as measured:
        for loaded, retention in grid.cells:
            prefilled, _ = prefill(runtime, grid.context, loaded.policy.needs)
            kept = choose(prefilled, loaded, retention, protection=grid.protection)
            measured.outputs.append(_decode_plainly(runtime, prefilled, kept, grid))
    return measured


def choose(
    prefilled: Prefilled,
    loaded: LoadedPolicy,
    retention: Fraction,
    *,
    protection: Protection = PROTECTION,
) -> Kept:
    """Score and select one cell."""
    trace = trace_of(prefilled).for_policy(loaded.policy.needs, ("0", "speed", loaded.slug))
    budget = budget_of(retention, prefilled.tokens)
    mask = keep_mask(loaded.policy, trace, budget, protection.fit(budget), name=loaded.slug)
    return Kept(mask=mask, positions=loaded.policy.positions)


def trace_of(prefilled: Prefilled) -> Trace:
    layers = tuple(prefilled.layers.values())
    positions = torch.arange(prefilled.tokens, device=layers[0].keys.device)
    return Trace(layers=layers, positions=positions)


def request(prefilled: Prefilled, question: Sequence[int], steps: int) -> Request:
    """A question without a known answer: its one scored token stands for the first step."""
    asked = Question(
        text="",
        question=tuple(question[:-1]),
        tail=tuple(question[-1:]),
        answer=(0,),
        slots=((0, 1),),
        reference="",
        references=("",),
        max_new_tokens=steps,
    )
    return Request(context=prefilled, questions=(asked,), layout=QuestionMode.UNSEEN, generate=1)


def _decode_plainly(runtime: Runtime, prefilled: Prefilled, kept: Kept, grid: Grid) -> list[int]:
    model = runtime.model
    cache = DynamicCache(config=model.config)
    for index, (layer, full) in enumerate(sorted(prefilled.layers.items())):
        cache.update(*_evicted(full.keys, full.values, kept.mask[index]), layer)
    model.set_attn_implementation("sdpa")
    try:
        return greedy(runtime, cache, grid)
    finally:
        model.set_attn_implementation(KERNEL)


def _evicted(keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    heads = keys.shape[0]
    index = mask.nonzero()[:, 1].view(heads, -1, 1).to(keys.device)
    take = [part.gather(1, index.expand(-1, -1, part.shape[-1])) for part in (keys, values)]
    return take[0][None], take[1][None]


def greedy(runtime: Runtime, cache: DynamicCache, grid: Grid) -> list[int]:
    """Answer from a cache of transformers, with positions that go on from the whole context."""
    start = len(grid.context)
    ids = torch.tensor([grid.question], device=runtime.device)
    positions = torch.arange(start, start + ids.shape[1], device=runtime.device)[None]
    row: list[int] = []
    with torch.inference_mode():
        while len(row) < grid.steps:
            logits = runtime.model(
                input_ids=ids,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            row.append(int(logits[0, -1].argmax()))
            if row[-1] in runtime.stop:
                return row[:-1]
            ids = torch.tensor([row[-1:]], device=runtime.device)
            positions = positions[:, -1:] + 1
    return row


@contextmanager
def measuring(runtime: Runtime) -> Iterator[Measured]:
    """Wall time, and the peak of memory on top of what is held at the start.

    On a CPU the peak counts what the process takes from the system: memory that earlier work
    freed and the allocator kept is used again unseen, so compare peaks of fresh processes.
    """
    measured = Measured()
    cuda = runtime.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(runtime.device)
    before = torch.cuda.memory_allocated(runtime.device) if cuda else _fresh_peak()
    start = runtime.clock()
    yield measured
    measured.seconds = runtime.clock() - start
    peak = torch.cuda.max_memory_allocated(runtime.device) if cuda else _peak_resident()
    measured.peak_bytes = max(0, peak - before)


def _fresh_peak() -> int:
    """Start the process's high-water mark anew where the system can; the bytes held now.

    Loading the model holds more than any grid does, so without this the peak would be its.
    """
    with suppress(OSError, AttributeError):
        # Freed memory that the allocator keeps would be used again without being counted.
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_resident()


def _peak_resident() -> int:
    """The most memory this process held since it was last asked to forget, in bytes."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        (mark,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(mark.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
