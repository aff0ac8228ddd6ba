"""Reading a context in blocks, evicting after each: later tokens never see what is gone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from kvharness.contract import BLOCK
from kvharness.engine.answer import Request, cache_entries, halving, parts
from kvharness.engine.evictor import Standing, cut_back
from kvharness.engine.guarded import guarded_step
from kvharness.engine.rolling_decode import together
from kvharness.model.attention import SlidingTrace, reading
from kvharness.model.evicted_cache import Kept
from kvharness.model.prefilled import Prefilled
from kvharness.model.rolling_cache import HeldCache
from kvharness.policy.trace import LayerTrace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kvharness.engine.evictor import Evictor
    from kvharness.errors import KvharnessError
    from kvharness.model.loaded import Runtime
    from kvharness.model.rolling_cache_layer import HeldLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRead:
    """What one cell kept of a context that was read in blocks.

    Attributes:
        context: its own keys and values at the tokens that it kept, zeros elsewhere.
        kept: which those are.
        seconds: the batch's wall time divided by its cells.
    """

    context: Prefilled
    kept: Kept
    seconds: float


def read_each(
    runtime: Runtime,
    request: Request,
    tokens: Sequence[int],
    evictors: Sequence[Evictor],
) -> list[BlockRead | KvharnessError]:
    """Read a context in blocks for every cell, in the order given.

    A cell that fails gets the problem in place of what it kept.
    """
    alike: dict[int, list[int]] = defaultdict(list)
    for index, evictor in enumerate(evictors):
        alike[evictor.budget].append(index)
    found: dict[int, BlockRead | KvharnessError] = {}
    layers = request.context.layers
    rows = len(layers) * next(iter(layers.values())).keys.shape[0]
    limit = cache_entries(runtime, request.context)
    for budget, members in alike.items():
        # A block on top of what is held, and the whole context afterwards.
        totals = [rows * (budget + BLOCK + len(tokens))] * len(members)
        for part in parts(request, totals, limit):
            chosen = [members[i] for i in part]
            batch = [evictors[i] for i in chosen]
            read = partial(_read, runtime, request, tokens)
            found.update(zip(chosen, halving(runtime, batch, read), strict=True))
    return [found[index] for index in range(len(evictors))]


def _read(
    runtime: Runtime,
    request: Request,
    tokens: Sequence[int],
    evictors: Sequence[Evictor],
) -> list[BlockRead | KvharnessError]:
    start = runtime.clock()
    cells = len(evictors)
    cache = HeldCache(
        cells,
        needs=together(iter(evictors)),
        whole=request.context,
        guard=partial(guarded_step, evictors[0].box),
    )
    standings = [Standing() for _ in evictors]
    for block in torch.tensor(list(tokens)).split(BLOCK):
        positions = cache.expect(len(block)).expand(cells, -1).to(runtime.device)
        with torch.no_grad(), reading(cache):
            runtime.model.get_decoder()(
                input_ids=block.expand(cells, -1).to(runtime.device),
                position_ids=positions,
                use_cache=False,
            )
        standings = cut_back(cache, evictors, standings)
    seconds = (runtime.clock() - start) / cells
    return [
        standing.problem or _whole(cache, cell, seconds) for cell, standing in enumerate(standings)
    ]


def _whole(cache: HeldCache, cell: int, seconds: float) -> BlockRead:
    """What a cell holds, put back to its places in the context."""
    layers = {name: cache.of_cell(layer, cell) for name, layer in cache.by_name().items()}
    compressed = {name: layer for name, layer in layers.items() if layer.window is None}
    context = Prefilled(
        layers={name: _spread(layer, cache.tokens) for name, layer in compressed.items()},
        sliding={
            name: SlidingTrace(keys=layer.keys, values=layer.values, window=layer.window)
            for name, layer in layers.items()
            if layer.window is not None
        },
        tokens=cache.tokens,
    )
    held = torch.stack([layer.positions.cpu() for layer in compressed.values()])
    mask = torch.zeros(*held.shape[:2], cache.tokens, dtype=torch.bool).scatter_(
        2, held, value=True
    )
    return BlockRead(context=context, kept=Kept(mask=mask), seconds=seconds)


def _spread(layer: HeldLayer, tokens: int) -> LayerTrace:
    def spread(rows: Tensor) -> Tensor:
        places = layer.positions[..., None].expand(-1, -1, rows.shape[-1])
        return rows.new_zeros(len(rows), tokens, rows.shape[-1]).scatter_(1, places, rows)

    return LayerTrace(keys=spread(layer.keys), values=spread(layer.values), scaling=layer.scaling)
