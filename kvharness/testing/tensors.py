"""Queries, keys and values as models make them, and as they break careless arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import torch

from kvharness.policy.observation.drawn import Drawn
from kvharness.policy.trace import LayerTrace
from kvharness.testing.letters import LETTERS

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor

    from kvharness.policy.observation.base import Observation

#: The factor on query-key products of every drawn layer.
SCALING = 0.5
#: Past the sqrt of float16's largest number: squares overflow there, and exp does everywhere.
_HUGE, _LARGEST = 1e4, 6e4


class Texture(StrEnum):
    """What a layer's numbers look like.

    ``sinks``: the first token draws most attention and has a small value, as in trained models.
    ``ties``: tokens repeat, so that scores are exactly equal. ``huge``: NaN-prone magnitudes.
    ``zeros``: norms are 0.
    """

    PLAIN = "plain"
    SINKS = "sinks"
    TIES = "ties"
    HUGE = "huge"
    ZEROS = "zeros"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a trace: ``heads`` is a multiple of ``kv_heads`` (GQA; MHA when equal; MQA at 1)."""

    layers: int
    heads: int
    kv_heads: int
    tokens: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTensors:
    """Everything of one layer: queries ``[H, n, d]``, keys and values ``[K, n, d]``.

    ``future`` is float32 ``[H, n]`` and ``similarity`` from 0 to 1, as in `View`.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    future: Tensor
    similarity: float = 1.0

    def observed(self, needs: Collection[Observation[Any]], *, chunk: int = 256) -> LayerTrace:
        """What the harness records for ``needs``, copied; ``chunk`` queries a step of the sums."""
        drawn = Drawn(
            queries=self.queries,
            keys=self.keys,
            values=self.values,
            scaling=SCALING,
            ahead=self.future,
            similarity=self.similarity,
            encoder=LETTERS,
            chunk=chunk,
        )
        return LayerTrace(
            keys=self.keys.clone(),
            values=self.values.clone(),
            scaling=SCALING,
            observed={each: each.sample(drawn) for each in needs},
        )


def draw_layer(
    shape: Shape, texture: Texture, dtype: torch.dtype, generator: torch.Generator
) -> LayerTensors:
    """One layer from a CPU generator; the same on every device."""

    def draw(heads: int) -> Tensor:
        return torch.randn(heads, shape.tokens, shape.size, generator=generator)

    queries, keys, values = draw(shape.heads), draw(shape.kv_heads), draw(shape.kv_heads)
    future = torch.rand(shape.heads, shape.tokens, generator=generator)
    if texture is Texture.SINKS:
        queries[..., 0] += 3
        keys[:, 0, 0] += 6
        values[:, 0] *= 0.01
    if texture is Texture.TIES:
        again = torch.arange(shape.tokens) % 3
        keys, values, future = keys[:, again], values[:, again], future[:, again]
    factor = {Texture.HUGE: _HUGE, Texture.ZEROS: 0.0}.get(texture, 1.0)
    q, k, v = (
        (each * factor).clamp(-_LARGEST, _LARGEST).to(dtype) for each in (queries, keys, values)
    )
    # Not drawn: one draw more would change every case.
    similarity = float(future.mean())
    return LayerTensors(queries=q, keys=k, values=v, future=future, similarity=similarity)
