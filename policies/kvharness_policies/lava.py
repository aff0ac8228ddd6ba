"""Layer budgets by entropy, head budgets by value-scaled scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness import Scope, shared_budgets, window_attention
from kvharness_policies.head_wise import HEAD_WISE, check_alpha
from kvharness_policies.snapkv import SnapKV

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice, View


@dataclass(frozen=True)
class LAVa(SnapKV):
    """LAVa (arXiv 2509.09754): layer budgets by entropy, head budgets by value-scaled scores.

    Score, for the prefix ``j < n - w``: ``s[k, j] = V[k] max over h in group(k) of
    pool_j(mean over the window of A[h, i, j])`` with the scalar ``V[k] = max_j ||v[k, j]||_1`` of
    the prefix; ``[H, w, n]`` to ``[K, n]``, the window 0 and protected. Within a head the ranking
    is SnapKV's with a group maximum; ``V`` only moves entries between heads.
    Budgets: layers in proportion to ``H(p) / log N`` of their ``N`` evictable scores, ``p = s /
    sum s``; heads of a layer as `Ada`.

    Args:
        alpha: the safeguard, 0.2 as in the official ``pred.py``; 0.5 in its ``inference.py``.

    Defaults: window 32, kernel 7, max-pooling, officially.
    Source: the official repository. Deviations: budgets are allocated once after the last layer,
    where the official code trims earlier layers again after each one; the kept sets are the same
    and only its peak memory is lower. Its misspelt floor, which damps the spread of layers and
    spends a little more than the nominal budget, is not repeated. Protected tokens are left out
    of the entropy. The entropy of diffuse layers is near its maximum, so that budgets are nearly
    uniform unless some layers are very spiky.
    Not verified: the paper's text and tables.
    """

    capabilities = HEAD_WISE

    alpha: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    def score(self, view: View) -> Tensor:
        attention = window_attention(view)
        prefix = view.tokens - attention.shape[1]
        scores = torch.zeros(view.kv_heads, view.tokens, device=attention.device)
        if prefix > 0:
            pooled = self._pool(attention[:, :, :prefix].mean(dim=1))
            norms = view.values[:, :prefix].float().norm(p=1, dim=-1).amax(dim=1, keepdim=True)
            scores[:, :prefix] = norms * pooled.unflatten(0, (view.kv_heads, -1)).amax(dim=1)
        return scores

    def allocate(self, choice: Choice) -> Tensor:
        scores, protected = choice.scores, choice.protected
        return shared_budgets(
            scores,
            choice.budget,
            protected,
            scope=Scope.LAYER,
            weights=_entropies(scores[..., ~protected]),
            safeguard=self.alpha,
        )


def _entropies(scores: Tensor) -> Tensor:
    """Entropy of each layer's scores, 1 where all are equal: ``[layers, K, m]`` to ``[layers]``."""
    flat = scores.flatten(1).double().cpu()
    if flat.shape[1] < 2:
        return torch.ones(len(flat), dtype=torch.float64)
    totals = flat.sum(dim=1, keepdim=True)
    even = torch.full_like(flat, 1 / flat.shape[1])
    shares = torch.where(totals > 0, flat / totals.clamp(min=1e-300), even)
    entropies: Tensor = torch.special.entr(shares).sum(dim=1).clamp(min=0)
    return entropies / math.log(flat.shape[1])
