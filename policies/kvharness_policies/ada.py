"""Entries of a layer for the heads of its highest scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import Scope, Wrapper, shared_budgets
from kvharness_policies.head_wise import HEAD_WISE, check_alpha

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice


@dataclass(frozen=True)
class Ada(Wrapper):
    """Ada-KV (arXiv 2407.11550): entries of a layer go to the heads of its highest scores.

    Scores are the wrapped policy's. Of a layer that may keep ``f`` entries a head beyond the
    protected, its ``f K`` highest scores are found, of which head ``h`` has ``o_h``; it gets
    ``(1 - alpha) o_h + alpha f`` entries and the protected ones, rounded by largest remainders.
    What a layer may keep is as the wrapped policy allocates: ``ada(pyramidkv)`` is Ada-Pyramid.

    Args:
        scorer: any policy; its scores are compared across the heads of a layer.
        alpha: the safeguard; 0.2 as in the official scripts and recommended with GQA, 0.5 in the
            official configuration of the class.

    Source: the official repository, whose mixture this is; NVIDIA/kvpress instead pins each head's
    first ``alpha f`` and shares the rest by score: another split. Deviations: the official
    rounding may miss the total by a few; ``normalize`` (off officially) is left out; scores
    are reduced over the query group by the scorer, for SnapKV after pooling, officially before.
    With one KV head it is the wrapped policy.
    Not verified: the paper's tables, and which of the official code's paths made them.
    """

    own_capabilities = HEAD_WISE

    alpha: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    def allocate(self, choice: Choice) -> Tensor:
        layers = self.scorer.allocate(choice).cpu().double().mean(dim=1)
        weights = (layers - int(choice.protected.sum())).clamp(min=0)
        return shared_budgets(
            choice.scores,
            choice.budget,
            choice.protected,
            scope=Scope.LAYER,
            weights=weights,
            safeguard=self.alpha,
        )
