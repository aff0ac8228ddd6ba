"""Chance: what every other policy has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import Capabilities
from kvharness_policies.rescoring import Rescoring
from kvharness_policies.uniform import uniform

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class Random(Rescoring):
    """Every layer and KV head keeps its own random tokens.

    Score: ``s[k, j] ~ U(0, 1)``, shape ``[K, n]``, independent between layers and heads.
    Source: the baseline ``RandomPress`` of NVIDIA/kvpress; no paper. No parameters.
    Deviations: kvpress restarts its seeded generator in each layer, so that all layers draw
    the same numbers; here each layer has a stream of its own, fixed by seed, item and policy.
    At low retention nearly every token survives in some head, so this is a generous chance
    level: `RandomTied` is the strict one.
    Evicting while decoding or in blocks, it draws anew at each step.
    """

    capabilities = Capabilities(deterministic=False, decodes=True, blocks=True)

    def score(self, view: View) -> Tensor:
        return uniform((view.kv_heads, view.tokens), view.rng).to(view.keys.device)
