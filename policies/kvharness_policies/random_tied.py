"""Chance with the same tokens in all layers and heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvharness import Capabilities, Policy
from kvharness_policies.uniform import uniform

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice, View


@dataclass(frozen=True)
class RandomTied(Policy):
    """All layers and KV heads keep the same random tokens, so what is evicted is gone.

    Score: ``s[l, k, j] = u[j]`` with ``u[j] ~ U(0, 1)``, shape ``[layers, K, n]``.
    Source: ours; the chance level of a cache that holds a fraction of the tokens. No
    parameters. The generator of a view differs between layers, so the draw is the first layer's:
    `score` ties the heads of a layer, and `select` the layers.
    """

    capabilities = Capabilities(deterministic=False)

    def score(self, view: View) -> Tensor:
        draw = uniform((1, view.tokens), view.rng).to(view.keys.device)
        return draw.repeat(view.kv_heads, 1)

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        tied = choice.scores[:1].expand_as(choice.scores)
        return super().select(replace(choice, scores=tied), budgets)
