"""Blocks by what deleting them changes in the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from kvharness import Policy, Protection, Queries, window_attention

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View

_EPSILON = 1e-6


@dataclass(frozen=True)
class ValueBlocks(Policy):
    """Value-aware ranking (arXiv 2605.08234): blocks by what deleting them changes in the output.

    Score of every token of block ``c``, ``block`` tokens in a row:
    ``s[k, c] = mean over h in group(k) and the last window queries i of d[h, i, c]`` with
    ``d = (a / max(1 - a, eps))^2 ||mu - o||_2^2``, ``a = sum_{j in c} A[h, i, j]``,
    ``mu = sum_{j in c} A[h, i, j] v[k, j] / max(a, eps)`` and ``o = sum_j A[h, i, j] v[k, j]``:
    the squared change of that query's output when the block is deleted. ``[H, w, n]`` and
    ``[K, n, d]`` to ``[K, n]``. Whole blocks are kept by score, and the tokens that are left of
    the budget are the first of the next block. Protects the window, as the host SnapKV does.

    Args:
        block: tokens a block, 16; 1 ranks tokens (the identity that CAOTE uses).
        leverage: with the factor ``(1 - a)^-2``, or without it.
        window: queries that are asked, 32.

    Source: the paper. Ours: the values of block (inferred from a figure), window and
    ``eps = 1e-6``, which it does not give; queries weigh alike (its ``r_u`` decays on the tail and
    is 1 on instruction and question tokens, which a view does not know); each layer is ranked on
    its own and each KV head keeps its own blocks, where its Algorithm 1 sums over layers and its
    text speaks of heads. Blocks are counted from the context's start and hold protected tokens too,
    so the neighbours of sinks, and of a window that begins inside a block, profit from their
    attention. Its several targets are left out.
    Not verified: the paper's figures; by them value-aware ranking is no general win.
    """

    block: int = 16
    leverage: bool = True
    window: int = 32

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block={self.block}: expected 1 or more tokens")
        if self.window < 1:
            raise ValueError(f"window={self.window}: expected 1 or more queries")

    @property
    def needs(self) -> frozenset[Queries]:
        return frozenset({Queries(self.window)})

    def score(self, view: View) -> Tensor:
        # In float64: 1 - a and mu - o cancel where one block has nearly all attention.
        attention = window_attention(view).double().unflatten(0, (view.kv_heads, -1))
        blocks = -(-view.tokens // self.block)
        missing = blocks * self.block - view.tokens
        values = pad(view.values.double(), (0, 0, 0, missing)).unflatten(1, (blocks, -1))
        total = torch.zeros(view.kv_heads, blocks, dtype=torch.float64, device=values.device)
        # Query by query: all at once would take w times the memory of the cache and more.
        for row in attention.unbind(dim=2):
            weights = pad(row, (0, missing)).unflatten(2, (blocks, -1))
            total += self._change(weights, values).mean(dim=1)
        scores: Tensor = (total / attention.shape[2]).repeat_interleave(self.block, dim=1)
        return scores[:, : view.tokens].float()

    def protect(self, tokens: int, budget: int) -> Protection:
        del tokens, budget
        return Protection(sinks=0, recents=self.window)

    def _change(self, weights: Tensor, values: Tensor) -> Tensor:
        """``d`` of one query: ``[K, G, C, p]`` and ``[K, C, p, d]`` to ``[K, G, C]``."""
        weights = weights / weights.sum(dim=(2, 3), keepdim=True)
        mass = weights.sum(dim=3)
        moved = torch.einsum("kgcp,kcpd->kgcd", weights, values)
        output = moved.sum(dim=2, keepdim=True)
        apart = moved / mass.clamp(min=_EPSILON)[..., None] - output
        factor = mass / (1 - mass).clamp(min=_EPSILON) if self.leverage else mass
        distance: Tensor = apart.square().sum(dim=-1)
        return factor.square() * distance
