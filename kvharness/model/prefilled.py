"""A context that was read once: what all cells of an item share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kvharness.errors import ModelProblem
    from kvharness.model.attention import SlidingTrace
    from kvharness.policy.probe import Probe
    from kvharness.policy.trace import LayerTrace
    from kvharness.policy.view import Needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """How reading a probe went: its wall seconds, and why it could not be read."""

    seconds: float
    problem: ModelProblem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilled:
    """A prefilled context: what all cells of an item share.

    Attributes:
        layers: model layer index to its full keys and values; the compressed layers.
        sliding: model layer index to what a sliding layer keeps.
        tokens: length of the context.
        boundaries: as in `View`; None unless asked for.
        probing: each probe that was to be read after it.
    """

    layers: dict[int, LayerTrace]
    sliding: dict[int, SlidingTrace]
    tokens: int
    boundaries: Tensor | None = None
    probing: Mapping[Probe, Probing] = field(default_factory=dict)

    def all_kept(self) -> Tensor:
        """The mask that keeps everything, bool ``[layers, K, n]``."""
        heads = next(iter(self.layers.values())).keys.shape[0]
        return torch.ones(len(self.layers), heads, self.tokens, dtype=torch.bool)

    def probe_seconds(self, needs: Needs) -> float:
        """What the probes of a policy took, shared or not.

        Raises:
            ModelProblem: one of them could not be read.
        """
        found = [self.probing[probe] for probe in needs.probes]
        for each in found:
            if each.problem is not None:
                raise each.problem
        return sum(each.seconds for each in found)
