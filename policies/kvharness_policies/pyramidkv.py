"""More entries for early layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness import Scope, shared_budgets
from kvharness_policies.head_wise import HEAD_WISE
from kvharness_policies.snapkv import SnapKV

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice


@dataclass(frozen=True)
class PyramidKV(SnapKV):
    """PyramidKV (arXiv 2406.02069): SnapKV's scores, more entries for early layers.

    Score: as `SnapKV`, ``[K, n]``. Budgets: with ``p`` protected tokens and ``f = b - p`` entries
    a head beyond them, layer ``l`` of ``L`` gets ``p + most - l (most - least) / (L - 1)`` a head;
    ``least = f / beta``, ``most = 2 f - least``; where that exceeds the ``n - p`` tokens there
    are, ``most = n - p`` and ``least = 2 f - most``. Uniform when ``n < 2 f``, as officially, and
    in a model of one layer. Rounded by largest remainders to exactly ``b L K``.

    Args:
        beta: how steep; the official default of 20.

    Defaults: window, kernel and pooling are those of our `SnapKV` (32, 7, max), so that the two
    differ in budgets alone; the official run script has 8/7/max, the class 64/5/avg.
    Source: KVCache-Factory. Deviations: its whole-number steps spend 4 to 12% more than the
    nominal budget when that is small; here the sum is exact. NVIDIA/kvpress falls back to uniform
    where ``least`` is below the window; here the window is protected in every layer and only what
    lies beyond it is shared. Layers are those that are compressed: sliding ones do not count.
    Not verified: the paper's tables, whose totals were not equal to SnapKV's.
    """

    capabilities = HEAD_WISE

    beta: float = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.beta < math.inf:
            raise ValueError(f"beta={self.beta}: expected a number from 1")

    def allocate(self, choice: Choice) -> Tensor:
        scores, budget, protected = choice.scores, choice.budget, choice.protected
        layers, _, tokens = scores.shape
        kept = int(protected.sum())
        weights = self._weights(layers, budget - kept, tokens - kept, tokens)
        return shared_budgets(scores, budget, protected, scope=Scope.HEAD, weights=weights)

    def _weights(self, layers: int, free: int, room: int, tokens: int) -> Tensor:
        """Real entries a head beyond the protected, ``[layers]``."""
        if tokens < 2 * free or layers == 1:
            return torch.full((layers,), float(free), dtype=torch.float64)
        least = free / self.beta
        if 2 * free - least >= room:
            least = 2 * free - room
        return torch.linspace(2 * free - least, least, layers, dtype=torch.float64)
