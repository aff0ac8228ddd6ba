"""What LKV learns: how much each head may keep, and which of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import gelu

from kvharness_policies.lkv.soft_top_k import soft_top_k

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the model and of the networks beside it."""

    layers: int
    kv_heads: int
    head_size: int
    hidden: int = 16
    embedding: int = 32


class Network(nn.Module):
    """LKV-H and LKV-T together.

    LKV-H: ``r = MLP(e)`` for each head's embedding ``e``; the shares ``beta`` of all heads are one
    soft top-k of ``r``. LKV-T: ``s = MLP_head([k; v])`` of standardised keys and values, a network
    of its own for each head, standardised over the tokens.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        heads, size = shape.layers * shape.kv_heads, 2 * shape.head_size
        stored = (shape.layers, shape.kv_heads, 1, size)
        self.register_buffer("mean", torch.zeros(stored))
        self.register_buffer("deviation", torch.ones(stored))
        self.homes = nn.Parameter(torch.randn(heads, shape.embedding))
        self.mix = nn.Linear(shape.embedding, shape.embedding)
        self.rank = nn.Linear(shape.embedding, 1)
        inner = (shape.layers, shape.kv_heads, size, shape.hidden)
        self.widen = nn.Parameter(torch.randn(inner) * size**-0.5)
        self.shift = nn.Parameter(torch.zeros(shape.layers, shape.kv_heads, 1, shape.hidden))
        self.narrow = nn.Parameter(
            torch.randn(shape.layers, shape.kv_heads, shape.hidden, 1) * shape.hidden**-0.5
        )
        # Equal shares at the start: what is learned is a departure from uniform budgets.
        nn.init.zeros_(self.rank.weight)
        nn.init.zeros_(self.rank.bias)

    def shares(self, retained: float) -> Tensor:
        """Share of its unprotected tokens that each head keeps, ``[layers, K]``.

        ``retained`` is their mean.
        """
        ranks = self.rank(gelu(self.mix(self.homes)))[:, 0]
        total = torch.tensor(retained * len(ranks), device=ranks.device)
        return soft_top_k(ranks, total, 1.0).view(self.shape.layers, self.shape.kv_heads)

    def scores(self, keys: Tensor, values: Tensor) -> Tensor:
        """Scores of all tokens, float32 ``[layers, K, n]``, from ``[layers, K, n, d]``."""
        raw = torch.cat((keys, values), dim=-1).float()
        inner = gelu((raw - self.mean) / self.deviation @ self.widen + self.shift)
        scores: Tensor = (inner @ self.narrow)[..., 0]
        return standardised(scores)

    def layer_scores(self, layer: int, keys: Tensor, values: Tensor) -> Tensor:
        """The same for one layer: ``[K, n]`` from ``[K, n, d]``."""
        raw = torch.cat((keys, values), dim=-1).float()
        normal = (raw - self.mean[layer]) / self.deviation[layer]
        inner = gelu(normal @ self.widen[layer] + self.shift[layer])
        scores: Tensor = (inner @ self.narrow[layer])[..., 0]
        return standardised(scores)


def standardised(scores: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the tokens of each head."""
    centred = scores - scores.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
