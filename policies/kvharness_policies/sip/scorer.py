"""The network that scores tokens from their keys, values and positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import gelu, logsigmoid, softplus

from kvharness_policies.sip.features import (
    POSITION_SIZE,
    Feature,
    parse_features,
    position_features,
    prefill_feature,
)

if TYPE_CHECKING:
    from torch import Tensor

#: Future tokens whose mean attention makes a label.
HORIZONS = (1, 4, 16, 64)
#: Tokens at the end of the context that every token is compared with.
RECENT = 32
DEFAULT_FEATURES = "position+keys+values"
PER_HEAD, NOTEBOOK = "per-head", "notebook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a scorer and of the model it is for."""

    layers: int
    kv_heads: int
    head_size: int
    width: int = 96
    blocks: int = 1
    attention_heads: int = 2
    widening: int = 2
    features: str = DEFAULT_FEATURES
    mode: str = PER_HEAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """A batch of KV heads with their ``n`` tokens: ``[B, n, d]``, ``[B, n]`` and ``[B]``."""

    keys: Tensor
    values: Tensor
    prefill: Tensor | None
    layer: Tensor
    head: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a scorer says of a batch of heads.

    Attributes:
        important: logits ``[B, n, 4]`` that a token is among the most attended, by horizon.
        confidence: logits ``[B, n, 4]`` that this is right.
        score: ``[B, n]``, the logarithm of the importance that tokens are ranked by.
    """

    important: Tensor
    confidence: Tensor
    score: Tensor


class Block(nn.Module):
    """Cross-attention to the recent context, and a feed-forward layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.attention = nn.MultiheadAttention(width, shape.attention_heads, batch_first=True)
        self.after_attention = nn.LayerNorm(width)
        self.widen = nn.Linear(width, width * shape.widening)
        self.narrow = nn.Linear(width * shape.widening, width)
        self.after_narrow = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        recent = tokens[:, -RECENT:]
        mixed, _ = self.attention(tokens, recent, recent, need_weights=False)
        tokens = self.after_attention(tokens + mixed)
        normal: Tensor = self.after_narrow(tokens + self.narrow(gelu(self.widen(tokens))))
        return normal


class Scorer(nn.Module):
    """Importance of cached tokens for the tokens to come, without seeing any query.

    ``z_j = LN(GELU(W [k_j; v_j] + P phi(j) + E_layer,head))``, then blocks; two small heads give
    importance ``a`` and confidence ``c`` for each horizon. Keys and values are standardised by
    the mean and deviation of their model, layer and head. A token's importance is
    ``exp(-softplus(g) (n - 1 - j) / n) * sum_H softmax_H(c / tau) sigmoid(a)``.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.features = parse_features(shape.features)
        heads = shape.layers * shape.kv_heads
        # Of keys and of values: set from the training text, and saved with the weights.
        stored = (2, shape.layers, shape.kv_heads, shape.head_size)
        self.register_buffer("mean", torch.zeros(stored))
        self.register_buffer("deviation", torch.ones(stored))
        self.content = nn.Linear(2 * shape.head_size, shape.width)
        self.place = nn.Linear(POSITION_SIZE + 1, shape.width, bias=False)
        self.home = nn.Embedding(heads, shape.width)
        self.after_content = nn.LayerNorm(shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.importance = nn.Linear(shape.width, len(HORIZONS))
        self.confidence = nn.Linear(shape.width, len(HORIZONS))
        self.decay = nn.Parameter(torch.full((heads,), -2.0))
        self.temperature = nn.Parameter(torch.zeros(()))

    def forward(self, heads: Heads) -> Outlook:
        index = heads.layer * self.shape.kv_heads + heads.head
        mixed = self.content(self._content(heads)) + self.place(self._place(heads))
        tokens = self.after_content(gelu(mixed + self.home(index)[:, None]))
        for block in self.blocks:
            tokens = block(tokens)
        important, confidence = self.importance(tokens), self.confidence(tokens)
        return Outlook(
            important=important,
            confidence=confidence,
            score=self._score(important, confidence, index),
        )

    def _content(self, heads: Heads) -> Tensor:
        parts = []
        pairs = ((Feature.KEYS, heads.keys), (Feature.VALUES, heads.values))
        for kind, (feature, tensor) in enumerate(pairs):
            mean = self.mean[kind, heads.layer, heads.head][:, None]
            deviation = self.deviation[kind, heads.layer, heads.head][:, None]
            normal = (tensor.float() - mean) / deviation
            parts.append(normal if feature in self.features else torch.zeros_like(normal))
        return torch.cat(parts, dim=-1)

    def _place(self, heads: Heads) -> Tensor:
        count, tokens = heads.keys.shape[:2]
        where = position_features(tokens, heads.keys.device).expand(count, -1, -1)
        if Feature.POSITION not in self.features:
            where = torch.zeros_like(where)
        if Feature.PREFILL in self.features and heads.prefill is not None:
            received = prefill_feature(heads.prefill)
        else:
            received = where.new_zeros(count, tokens, 1)
        return torch.cat((where, received), dim=-1)

    def _score(self, important: Tensor, confidence: Tensor, index: Tensor) -> Tensor:
        weights = (confidence / self.temperature.exp()).log_softmax(dim=-1)
        mixed = (weights + logsigmoid(important)).logsumexp(dim=-1)
        tokens = important.shape[1]
        left = torch.arange(tokens - 1, -1, -1, device=important.device) / tokens
        if Feature.POSITION not in self.features:
            return mixed
        return mixed - softplus(self.decay[index])[:, None] * left
