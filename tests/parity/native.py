"""What kvpress does by itself: a prefill for each press, under its own context manager."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from kvharness.engine.speed import Measured, greedy, measuring
from kvharness.model.attention import KERNEL
from kvharness.policy.observation.layer_hooks import attention_modules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvharness.engine.speed import Grid
    from kvharness.model.loaded import Runtime

Sets = list[list[list[int]]]


@contextmanager
def plain(runtime: Runtime, implementation: str = "sdpa") -> Iterator[Any]:
    """The model as transformers runs it; what kvpress leaves on it is taken away at the end."""
    runtime.model.set_attn_implementation(implementation)
    try:
        yield runtime.model
    finally:
        runtime.model.set_attn_implementation(KERNEL)
        for module in attention_modules(runtime.model):
            for name in ("masked_key_indices", "rotary_emb"):
                if hasattr(module, name):
                    delattr(module, name)


def ratio_of(budget: int, tokens: int) -> float:
    """What kvpress must be given, ``int(tokens * (1 - ratio))`` being the budget."""
    return 1 - (budget + 0.01) / tokens


def compressed(runtime: Runtime, model: Any, press: Any, ids: Sequence[int]) -> DynamicCache:
    cache = DynamicCache()
    with torch.no_grad(), press(model):
        model.model(input_ids=torch.tensor([ids], device=runtime.device), past_key_values=cache)
    return cache


def kept_by(press: Any, runtime: Runtime, ids: Sequence[int], implementation: str) -> Sets:
    """Kept positions by layer and KV head, found row by row in an uncompressed cache."""
    with plain(runtime, implementation) as model:
        full = DynamicCache()
        with torch.no_grad():
            model.model(input_ids=torch.tensor([ids]), past_key_values=full)
        cache = compressed(runtime, model, press, ids)
        masked = [getattr(m, "masked_key_indices", None) for m in attention_modules(model)]
    layers: Any = zip(masked, full.layers, cache.layers, strict=True)
    return [
        _unmasked(gone, before.keys.shape) if gone is not None else _found(before, after)
        for gone, before, after in layers
    ]


def _unmasked(gone: Any, shape: tuple[int, ...]) -> list[list[int]]:
    pairs = set(zip(gone[1].tolist(), gone[2].tolist(), strict=True))
    return [[j for j in range(shape[2]) if (head, j) not in pairs] for head in range(shape[1])]


def _found(before: Any, after: Any) -> list[list[int]]:
    def rows(layer: Any) -> list[list[bytes]]:
        both = torch.cat((layer.keys[0], layer.values[0]), dim=-1)
        return [[row.numpy().tobytes() for row in head] for head in both]

    places = [{row: j for j, row in enumerate(head)} for head in rows(before)]
    assert all(len(place) == before.keys.shape[2] for place in places), "rows are ambiguous"
    return [
        sorted(place[row] for row in head) for place, head in zip(places, rows(after), strict=True)
    ]


def by_kvpress(runtime: Runtime, grid: Grid, presses: Sequence[Any]) -> Measured:
    """The grid as kvpress is used: for each cell a prefill of its own, then a greedy loop."""
    with plain(runtime) as model, measuring(runtime) as measured:
        for press in presses:
            cache = compressed(runtime, model, press, grid.context)
            measured.outputs.append(greedy(runtime, cache, grid))
    return measured
