"""Fewer entries for layers that change little."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities, HiddenSimilarity, Scope, Wrapper, shared_budgets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kvharness import Choice


@dataclass(frozen=True)
class Squeeze(Wrapper):
    """SqueezeAttention (arXiv 2404.04793): layers that leave hidden states alike get less.

    Scores are the wrapped policy's; its own budgets are not used. ``c[l]`` is the mean cosine,
    over the context's tokens, of the hidden states before and after layer ``l``. Of three groups
    of layers with the least squared distance to their mean ``c``, that of the highest mean gets
    ``reduced f`` entries a head beyond the protected ones, ``f`` being the uniform share, and
    the others alike the rest: exactly ``b L K`` in all. With fewer than three values of ``c`` each
    is a group; with one, budgets are uniform.

    Args:
        scorer: whose scores.
        reduced: 0.5, ours: between 0.38 and 0.62 of the published settings (0.21 to 0.08, and 0.4
            to 0.25), which were tuned by task.

    Where layers are full, what they cannot hold flows back: with 1,024 tokens of the embedded model
    (four layers of 30 get more) quiet ones get ``reduced f`` at 0.1 and 0.25, 0.83 f at 0.5 and
    0.95 f at 0.75.

    Source: the official repository. Deviations: there the state after attention is compared, before
    the MLP; here that after the whole layer, which every architecture has. On the embedded model
    that keeps one layer more, the last, whose MLP changes the state most (0.79, and 0.99 after its
    attention). Its k-means starts at
    random; here the best grouping is found. Its budgets count from a fixed length of 8000, exceed
    the context, or stay for the next prompt; none of that is repeated.
    Not verified: the paper's tables; its abstract speaks of two groups, the code has three.
    """

    own_needs = frozenset({HiddenSimilarity()})
    own_capabilities = Capabilities(head_wise=True, nested=False)

    reduced: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.reduced <= 1:
            raise ValueError(f"reduced={self.reduced}: expected a share from 0 to 1")

    def allocate(self, choice: Choice) -> Tensor:
        similarities = [view[HiddenSimilarity()] for view in choice.trace.views]
        weights = layer_weights(similarities, self.reduced)
        scores, budget, protected = choice.scores, choice.budget, choice.protected
        return shared_budgets(scores, budget, protected, scope=Scope.HEAD, weights=weights)


def layer_weights(similarities: Sequence[float], reduced: float) -> Tensor:
    """Share of the uniform budget of each layer, float64 ``[layers]``, 1 on average."""
    layers = len(similarities)
    least = _highest_group(similarities)
    alike = torch.tensor([each >= least for each in similarities])
    few = int(alike.sum())
    if few == layers:
        return torch.ones(layers, dtype=torch.float64)
    more = (layers - few * reduced) / (layers - few)
    return torch.full((layers,), more, dtype=torch.float64).masked_fill(alike, reduced)


def _highest_group(numbers: Sequence[float]) -> float:
    """The least number of the highest of three groups."""
    ordered = sorted(numbers)
    if len(set(ordered)) <= 3:
        return ordered[-1]
    cuts = combinations_with_replacement(range(1, len(ordered)), 2)
    parts = ((ordered[:i], ordered[i:j], ordered[j:]) for i, j in cuts)
    best = min(parts, key=lambda groups: sum(_spread(group) for group in groups))
    return best[2][0]


def _spread(numbers: Sequence[float]) -> float:
    if not numbers:
        return 0.0
    mean = sum(numbers) / len(numbers)
    return sum((each - mean) ** 2 for each in numbers)
