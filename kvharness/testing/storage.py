"""A look into the harness's cache: what it holds physically."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.model.evicted_cache import BatchCache


def stored(cache: BatchCache, layer: int) -> list[tuple[Tensor, Tensor]]:
    """Keys and values ``[entries, d]`` of each row (cell, KV head) of a layer, new ones behind."""
    rows = []
    # The engine needs no such view, so the cache has no public one.
    for segment in cache._layers[layer]:  # noqa: SLF001
        end = segment.kept + cache.used
        rows += list(zip(segment.keys[:, :end], segment.values[:, :end], strict=True))
    return rows
