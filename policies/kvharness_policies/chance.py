"""Policies that know nothing: what every other policy has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities, Policy

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from kvharness import Trace, View


@dataclass(frozen=True)
class Random(Policy):
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
        return _uniform((view.kv_heads, view.tokens), view.rng).to(view.keys.device)


@dataclass(frozen=True)
class RandomTied(Policy):
    """All layers and KV heads keep the same random tokens, so what is evicted is gone.

    Score: ``s[l, k, j] = u[j]`` with ``u[j] ~ U(0, 1)``, shape ``[layers, K, n]``.
    Source: ours; the chance level of a cache that holds a fraction of the tokens. No
    parameters. The generator of a view differs between layers, so the draw is the first
    layer's; `score` of another layer alone ties its heads but not the layers.
    """

    capabilities = Capabilities(deterministic=False)

    def score(self, view: View) -> Tensor:
        draw = _uniform((1, view.tokens), view.rng).to(view.keys.device)
        return draw.repeat(view.kv_heads, 1)

    def score_all(self, trace: Trace) -> Tensor:
        return self.score(trace.views[0]).repeat(len(trace.layers), 1, 1)


def _uniform(shape: tuple[int, ...], rng: Generator) -> Tensor:
    # Drawn where the generator lives: a CPU stream is the same on every device.
    return torch.rand(shape, generator=rng, dtype=torch.float32, device=rng.device)
