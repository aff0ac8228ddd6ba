"""Policies about how many entries layers and heads get, rather than which tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities, Scope, shared_budgets, window_attention
from kvharness_policies.window import SnapKV
from kvharness_policies.wrapper import Wrapper

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View

_HEAD_WISE = Capabilities(head_wise=True, nested=False)


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

    capabilities = _HEAD_WISE

    beta: float = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.beta < math.inf:
            raise ValueError(f"beta={self.beta}: expected a number from 1")

    def allocate(self, scores: Tensor, budget: int, protected: Tensor) -> Tensor:
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


@dataclass(frozen=True)
class Ada(Wrapper):
    """Ada-KV (arXiv 2407.11550): entries of a layer go to the heads of its highest scores.

    Scores are the wrapped policy's. Of a layer that may keep ``f`` entries a head beyond the
    protected, its ``f K`` highest scores are found, of which head ``h`` has ``o_h``; it gets
    ``(1 - alpha) o_h + alpha f`` entries and the protected ones, rounded by largest remainders.
    What a layer may keep is as the wrapped policy allocates: ``ada(pyramidkv)`` is Ada-Pyramid.

    Args:
        scorer: any policy; its scores are compared across the heads of a layer.
        alpha: the safeguard; 0.2 as in the official scripts and recommended with GQA, 0.5 in the
            official configuration of the class.

    Source: the official repository, whose mixture this is; NVIDIA/kvpress instead pins each head's
    first ``alpha f`` and shares the rest by score: another split. Deviations: the official
    rounding may miss the total by a few; ``normalize`` (off officially) is left out; scores
    are reduced over the query group by the scorer, for SnapKV after pooling, officially before.
    With one KV head it is the wrapped policy.
    Not verified: the paper's tables, and which of the official code's paths made them.
    """

    capabilities = _HEAD_WISE

    alpha: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_alpha(self.alpha)

    def allocate(self, scores: Tensor, budget: int, protected: Tensor) -> Tensor:
        layers = self.scorer.allocate(scores, budget, protected).cpu().double().mean(dim=1)
        weights = (layers - int(protected.sum())).clamp(min=0)
        return shared_budgets(
            scores,
            budget,
            protected,
            scope=Scope.LAYER,
            weights=weights,
            safeguard=self.alpha,
        )


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

    capabilities = _HEAD_WISE

    alpha: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_alpha(self.alpha)

    def score(self, view: View) -> Tensor:
        attention = window_attention(view)
        prefix = view.tokens - attention.shape[1]
        scores = torch.zeros(view.kv_heads, view.tokens, device=attention.device)
        if prefix > 0:
            pooled = self._pool(attention[:, :, :prefix].mean(dim=1))
            norms = view.values[:, :prefix].float().norm(p=1, dim=-1).amax(dim=1, keepdim=True)
            scores[:, :prefix] = norms * pooled.unflatten(0, (view.kv_heads, -1)).amax(dim=1)
        return scores

    def allocate(self, scores: Tensor, budget: int, protected: Tensor) -> Tensor:
        return shared_budgets(
            scores,
            budget,
            protected,
            scope=Scope.LAYER,
            weights=_entropies(scores[..., ~protected.to(scores.device)]),
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


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: expected a share from 0 to 1")
