"""Reading tokens on top of a full cache, which stays as it was."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from kvharness.errors import ModelProblem
from kvharness.model.attention import reading
from kvharness.model.evicted_cache import BatchCache, Kept
from kvharness.model.out_of_memory import explained
from kvharness.policy.observation.part import Probed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from kvharness.policy.observation.part import Part
    from kvharness.policy.observation.reading import AttentionCall

#: Tokens of a part per forward pass: bounds the mask at H / K x 512 x n numbers.
_BLOCK = 512


def read_after(
    runtime: Runtime, prefilled: Prefilled, parts: Sequence[Part], start: int
) -> dict[int, tuple[Probed, ...]]:
    """What each compressed layer makes of each part, by the model's layer index.

    Raises:
        ModelProblem: they do not fit the model's window, or memory.
    """
    longest = max((len(part.ids) for part in parts), default=0)
    _check_window(runtime, start + longest)
    layers: dict[int, list[Probed]] = {layer: [] for layer in prefilled.layers}
    doing = f"reading a probe of {longest} tokens after {prefilled.tokens}"
    with explained(runtime.device, doing), torch.no_grad():
        # A copy of the context's entries: what is written behind them is gone with it.
        cache = BatchCache(prefilled, [Kept(mask=prefilled.all_kept())], room=longest)
        for part in parts:
            for layer, probed in _read_part(runtime, cache, part, start).items():
                layers[layer].append(probed)
    return {layer: tuple(read) for layer, read in layers.items()}


def _check_window(runtime: Runtime, tokens: int) -> None:
    window = getattr(runtime.model.config.get_text_config(), "max_position_embeddings", None)
    if window is not None and tokens > window:
        raise ModelProblem(
            f"with it the context takes {tokens} tokens, and "
            f"{runtime.source.name} was made for at most {window}; lower --kv-context by "
            f"{tokens - window} or more"
        )


def _read_part(runtime: Runtime, cache: BatchCache, part: Part, start: int) -> dict[int, Probed]:
    reader = _ProbeReader(cache)
    cache.used = 0
    ids = torch.tensor([part.ids], device=runtime.device)
    for first in range(0, len(part.ids), _BLOCK):
        offsets = torch.arange(first, min(first + _BLOCK, len(part.ids)))
        order = torch.arange(int(offsets[-1]) + 1)
        # Distances within a sliding window are those of the natural positions.
        cache.expect(offsets, order[None, :] <= offsets[:, None])
        with reading(reader):
            runtime.model.get_decoder()(
                input_ids=ids[:, first : first + _BLOCK],
                position_ids=(offsets + start)[None].to(runtime.device),
                use_cache=False,
            )
        cache.used += len(offsets)
    return {layer: reader.probed(layer, part) for layer in reader.queries}


class _ProbeReader:
    """Notes the queries and keys of new tokens that attend to a cache."""

    def __init__(self, cache: BatchCache) -> None:
        self.cache = cache
        self.queries: dict[int, list[Tensor]] = defaultdict(list)
        self.keys: dict[int, list[Tensor]] = defaultdict(list)

    def attend(self, call: AttentionCall) -> Tensor:
        if call.window is None:
            self.queries[call.layer].append(call.query[0])
            self.keys[call.layer].append(call.key[0])
        return self.cache.attend(call)

    def probed(self, layer: int, part: Part) -> Probed:
        return Probed(
            queries=torch.cat(self.queries[layer], dim=1),
            keys=torch.cat(self.keys[layer], dim=1),
            first=part.first,
            last=part.last,
        )
