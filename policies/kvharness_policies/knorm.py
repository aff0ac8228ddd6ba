"""Keys of low norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class Knorm(Policy):
    """Key norm (arXiv 2406.11430): keys of low L2 norm attract attention and stay.

    Score: ``s[k, j] = -||key[k, j]||_2`` in float32; ``[K, n, d]`` to ``[K, n]``. RoPE keeps
    norms, so keys before or after it score alike.
    No parameters: the official ``keep_ratio`` is the budget. The official code protects
    neither sinks nor recents.
    Deviations: no layer is skipped, whereas the official README skips layers 0 and 1 and its
    needle script 0, 1 and 12, without counting them. The equal norms of repeated tokens in
    layer 0 tie: the earlier position wins here, undefined officially. QK-norm (Qwen3, Gemma 3)
    and key biases (Qwen2) change what a norm means. Not verified: the paper's tables.
    """

    def score(self, view: View) -> Tensor:
        norms: Tensor = view.keys.float().norm(dim=-1)
        return -norms
