"""Decoding under eviction, slowly: everything is computed from scratch after each token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass
class Naive:
    """A Llama of transformers whose every row sees the entries that were held when it was read.

    Attributes:
        model: plain.
        score: gives the scores of held entries of a layer and KV head.
        compact: whether positions count places in the cache.
        tokens: read so far.
        sees: for each token and (layer, KV head) the entries it sees, in order.
        held: for each (layer, KV head) the entries that are there now, in order.
        attention: ``[layer][head, row, column]``, of the last pass.
        keys, values: ``[layer][token, KV head]`` of the last pass; keys at their own positions.
        chunks: how many tokens each reading had.
    """

    model: Any
    score: Callable[[Naive, int, int], list[float]]
    compact: bool = False
    tokens: list[int] = field(default_factory=list)
    sees: list[dict[tuple[int, int], list[int]]] = field(default_factory=list)
    held: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    attention: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def places(self) -> list[tuple[int, int]]:
        heads = self.config.num_key_value_heads
        return [(x, k) for x in range(self.config.num_hidden_layers) for k in range(heads)]

    @property
    def group(self) -> int:
        return int(self.config.num_attention_heads // self.config.num_key_value_heads)

    def read(self, tokens: list[int]) -> Tensor:
        """Logits after the last of some more tokens."""
        for token in tokens:
            number = len(self.tokens)
            self.tokens.append(token)
            for place in self.places:
                self.held.setdefault(place, []).append(number)
            self.sees.append({place: list(self.held[place]) for place in self.places})
        self.chunks.append(len(tokens))
        return self._forward()[-1]

    def evict(self, budget: int, sinks: int, recents: int) -> None:
        """Keep the first and last entries held, then the highest scores, then the earlier."""
        scores = {place: self.score(self, *place) for place in self.places}
        for place, held in self.held.items():
            if len(held) > budget:
                free = range(sinks, len(held) - recents)
                best = sorted(free, key=lambda j: (-scores[place][j], j))[
                    : budget - sinks - recents
                ]
                kept = sorted([*range(sinks), *best, *range(len(held) - recents, len(held))])
                self.held[place] = [held[j] for j in kept]

    def row(self, layer: int, head: int, row: int) -> list[float]:
        """Attention of a token to the entries held in a query head now."""
        entries = self.held[layer, head // self.group]
        return [float(self.attention[layer][head, row, j]) for j in entries]

    def _forward(self) -> Tensor:
        inner = self.model.model
        hidden = inner.embed_tokens(torch.tensor(self.tokens))
        self.attention, self.keys, self.values = [], [], []
        for number, layer in enumerate(inner.layers):
            hidden = hidden + self._attend(number, layer, layer.input_layernorm(hidden))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        logits: Tensor = self.model.lm_head(inner.norm(hidden))
        return logits

    def _attend(self, number: int, layer: Any, hidden: Tensor) -> Tensor:
        own, size, total = layer.self_attn, self.config.head_dim, len(self.tokens)
        query = own.q_proj(hidden).view(total, -1, size)
        key = own.k_proj(hidden).view(total, -1, size)
        value = own.v_proj(hidden).view(total, -1, size)
        weights = torch.zeros(query.shape[1], total, total)
        out = torch.zeros(total, query.shape[1], size)
        for row in range(total):
            for head in range(query.shape[1]):
                entries = self.sees[row][number, head // self.group]
                keys = key[entries, head // self.group]
                at = list(range(len(entries))) if self.compact else entries
                logits = self._turn(keys, at) @ self._turn(query[row, head][None], at[-1:])[0]
                paid = (logits * size**-0.5).softmax(dim=-1)
                weights[head, row, entries] = paid
                out[row, head] = paid @ value[entries, head // self.group]
        heads = key.unbind(dim=1)
        self.keys.append(torch.stack([self._turn(k, list(range(total))) for k in heads], dim=1))
        self.values.append(value)
        self.attention.append(weights)
        mixed: Tensor = own.o_proj(out.flatten(1))
        return mixed

    def _turn(self, vectors: Tensor, positions: list[int]) -> Tensor:
        """Rotary embedding, from its definition."""
        half = vectors.shape[-1] // 2
        theta = float(self.config.rope_parameters["rope_theta"])
        angles = torch.tensor(positions, dtype=torch.float32)[:, None] * theta ** (
            -torch.arange(half) / half
        )
        one, two = vectors[:, :half], vectors[:, half:]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((one * cos - two * sin, two * cos + one * sin), dim=-1)


def heads_of(naive: Naive, kv_head: int) -> range:
    return range(kv_head * naive.group, (kv_head + 1) * naive.group)


def h2o(naive: Naive, layer: int, kv_head: int) -> list[float]:
    rows = [
        naive.row(layer, head, row)
        for head in heads_of(naive, kv_head)
        for row in range(len(naive.tokens))
    ]
    return [sum(column) / naive.group for column in zip(*rows, strict=True)]


def tova(naive: Naive, layer: int, kv_head: int) -> list[float]:
    del kv_head
    heads = range(naive.config.num_attention_heads)
    rows = [naive.row(layer, head, len(naive.tokens) - 1) for head in heads]
    return [sum(column) / len(heads) for column in zip(*rows, strict=True)]


def latest(naive: Naive, layer: int, kv_head: int) -> list[float]:
    return [float(entry) for entry in naive.held[layer, kv_head]]


def sage(naive: Naive, layer: int, kv_head: int) -> list[float]:
    """The last context token's attention; whatever was a recent then or came later leaves."""
    entries, total = naive.held[layer, kv_head], naive.chunks[0]
    rows = [naive.row(layer, head, total - 1) for head in heads_of(naive, kv_head)]
    best = [max(column) for column in zip(*rows, strict=True)]
    if len(naive.chunks) == 1:
        return best
    return [
        score if entry < total - SAGE_RECENTS else -1.0
        for entry, score in zip(entries, best, strict=True)
    ]


#: Of `sage` above; the policy in the test has as many.
SAGE_RECENTS = 5


def low_counts(window: int) -> Callable[[Naive, int, int], list[float]]:
    """Minus how often an entry got less than even attention since the window's first row."""

    def score(naive: Naive, layer: int, kv_head: int) -> list[float]:
        rows = range(max(0, naive.chunks[0] - window), len(naive.tokens))
        entries = naive.held[layer, kv_head]
        counts = [0.0] * len(entries)
        for row in rows:
            even = 1 / len(naive.sees[row][layer, kv_head])
            for head in heads_of(naive, kv_head):
                paid = naive.row(layer, head, row)
                for place, entry in enumerate(entries):
                    seen = entry in naive.sees[row][layer, kv_head]
                    counts[place] -= seen and paid[place] < even * (1 - 1e-3)
        return [count / naive.group for count in counts]

    return score


def keydiff(naive: Naive, layer: int, kv_head: int) -> list[float]:
    """Minus the sum of cosines with all keys held, itself included: the same order."""
    keys = naive.keys[layer][naive.held[layer, kv_head], kv_head]
    unit = keys / keys.norm(dim=-1, keepdim=True)
    return [-float(each) for each in (unit @ unit.T).sum(dim=1)]


def caote_tova(naive: Naive, layer: int, kv_head: int) -> list[float]:
    """How far the output moves when one entry is taken out, from the output itself."""
    paid = torch.tensor(tova(naive, layer, kv_head))
    paid = paid / paid.sum()
    values = naive.values[layer][naive.held[layer, kv_head], kv_head]
    whole = paid @ values
    errors = []
    for j in range(len(paid)):
        rest = torch.arange(len(paid)) != j
        without = (paid[rest] / paid[rest].sum()) @ values[rest]
        errors.append(float((whole - without).norm()))
    return errors


def caote_h2o(naive: Naive, layer: int, kv_head: int) -> list[float]:
    """As `caote_tova` with summed attention."""
    paid = torch.tensor(h2o(naive, layer, kv_head))
    paid = paid / paid.sum()
    values = naive.values[layer][naive.held[layer, kv_head], kv_head]
    apart = (paid @ values - values).norm(dim=-1)
    return [float(each) for each in paid / (1 - paid) * apart]
