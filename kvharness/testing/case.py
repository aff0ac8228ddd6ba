"""One drawn situation that a policy is put into; its repr is the example a failure shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from kvharness.contract import Protection
from kvharness.policy.trace import Trace
from kvharness.testing.tensors import LayerTensors, Shape, Texture, draw_layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.policy.observation.base import Observations

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: The words that fix a view's generator: seed, item, policy.
WORDS = ("0", "item", "policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A context and a contract.

    ``sinks`` and ``recents`` are the contract's, before they are fitted to ``budget``, which is
    the entries per KV head.
    """

    shape: Shape
    budget: int
    sinks: int = 0
    recents: int = 0
    dtype: str = "float32"
    texture: Texture = Texture.PLAIN
    seed: int = 0

    @property
    def protection(self) -> Protection:
        """The contract's, fitted to the budget as the engine does."""
        return Protection(sinks=self.sinks, recents=self.recents).fit(self.budget)

    @property
    def total(self) -> int:
        """Entries that all layers and heads keep together."""
        return self.budget * self.shape.layers * self.shape.kv_heads

    @property
    def protected(self) -> list[int]:
        """Positions that must stay, read off the contract without the harness's own mask."""
        kept, tokens = self.protection, self.shape.tokens
        return [j for j in range(tokens) if j < kept.sinks or j >= tokens - kept.recents]

    def with_budget(self, budget: int) -> Case:
        return replace(self, budget=budget)

    def tensors(self) -> list[LayerTensors]:
        """A `LayerTensors` for each layer, the same at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        return [
            draw_layer(self.shape, self.texture, DTYPES[self.dtype], generator)
            for _ in range(self.shape.layers)
        ]

    def trace(self, needs: Observations, *, words: Sequence[str] = WORDS) -> Trace:
        """What the harness shows a policy with these needs."""
        return trace_of(self.tensors(), needs, words=words)


def trace_of(
    tensors: Sequence[LayerTensors],
    recorded: Observations,
    *,
    words: Sequence[str] = WORDS,
    chunk: int = 256,
    positions: Sequence[int] | None = None,
) -> Trace:
    """A trace of all that the harness recorded; `Trace.for_policy` narrows it."""
    tokens = tensors[0].keys.shape[1]
    places = list(range(tokens)) if positions is None else list(positions)
    return Trace(
        layers=tuple(layer.observed(recorded, chunk=chunk) for layer in tensors),
        positions=torch.tensor(places, dtype=torch.int64),
        rng_words=tuple(words),
    )


def on_device(trace: Trace, device: str) -> Trace:
    """The trace with every tensor on a device."""
    layers = tuple(layer.moved(device) for layer in trace.layers)
    return replace(trace, layers=layers, positions=trace.positions.to(device))
