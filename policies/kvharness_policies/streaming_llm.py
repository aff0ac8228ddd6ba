"""The first tokens and the last, moved together."""

from __future__ import annotations

from dataclasses import dataclass

from kvharness import Positions
from kvharness_policies.position import Position


@dataclass(frozen=True)
class StreamingLLM(Position):
    """StreamingLLM (arXiv 2309.17453): `Position` with positions counted in the cache.

    Score: as `Position`, ``[K, n]``. Kept keys are re-rotated to ``0 .. b - 1`` and decoding
    goes on from ``b``: the official code stores keys before RoPE and rotates them at their
    cache slot.
    Default: ``sinks = 4``, the official ``start_size``. The official ``recent_size`` (512 in
    the class, 2000 in the demo) is replaced by the budget.
    Deviations: one eviction at the end of a dense prefill, where the official cache rolls on at
    every forward, so its later hidden states never saw the evicted tokens. Evicting while decoding,
    the window rolls on and each token stands at its place in the cache, as officially. Not
    verified: the speed and length claims of the paper.
    """

    positions = Positions.COMPACT
