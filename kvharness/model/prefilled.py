"""A context that was read once: what all cells of an item share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kvharness.errors import ModelProblem
    from kvharness.model.attention import SlidingTrace
    from kvharness.policy.observation.base import Observation, Observations
    from kvharness.policy.trace import LayerTrace


@dataclass(frozen=True, slots=True, kw_only=True)
class Observing:
    """How an observation went: its seconds after the pass, and why it could not be made."""

    seconds: float
    problem: ModelProblem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilled:
    """A prefilled context: what all cells of an item share.

    Attributes:
        layers: model layer index to its full keys and values; the compressed layers.
        sliding: model layer index to what a sliding layer keeps.
        tokens: length of the context.
        observing: each observation that was to be made of it.
    """

    layers: dict[int, LayerTrace]
    sliding: dict[int, SlidingTrace]
    tokens: int
    observing: Mapping[Observation[Any], Observing] = field(default_factory=dict)

    def all_kept(self) -> Tensor:
        """The mask that keeps everything, bool ``[layers, K, n]``."""
        heads = next(iter(self.layers.values())).keys.shape[0]
        return torch.ones(len(self.layers), heads, self.tokens, dtype=torch.bool)

    def without_last(self) -> Prefilled:
        """As it was before its last token was read; nothing is observed of it."""
        return Prefilled(
            layers={
                index: replace(
                    layer, keys=layer.keys[:, :-1], values=layer.values[:, :-1], observed={}
                )
                for index, layer in self.layers.items()
            },
            sliding={
                index: replace(layer, keys=layer.keys[:, :-1], values=layer.values[:, :-1])
                for index, layer in self.sliding.items()
            },
            tokens=self.tokens - 1,
        )

    def observing_seconds(self, needs: Observations) -> float:
        """What the observations of a policy took after the pass, shared or not.

        Raises:
            ModelProblem: one of them could not be made.
        """
        found = [self.observing[each] for each in needs]
        for each in found:
            if each.problem is not None:
                raise each.problem
        return sum(each.seconds for each in found)
