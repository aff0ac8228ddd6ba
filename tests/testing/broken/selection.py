"""Budgets and masks that are not what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities
from tests.testing.broken.interface import Zeros

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


class OneTooMany(Zeros):
    def allocate(self, scores: Tensor, budget: int, protected: Tensor) -> Tensor:
        budgets = super().allocate(scores, budget, protected)
        budgets[-1, -1] += 1
        return budgets


class RoundedDown(Zeros):
    """Budgets by layer in whole chunks, as ChunkKV keeps 0.415 of 205 tokens at 0.5."""

    def allocate(self, scores: Tensor, budget: int, protected: Tensor) -> Tensor:
        return super().allocate(scores, budget, protected) // 4 * 4


class HeadWiseUndeclared(Zeros):
    def allocate(self, scores: Tensor, budget: int, protected: Tensor) -> Tensor:
        budgets = super().allocate(scores, budget, protected)
        if scores.shape[1] > 1 and 6 <= budget < scores.shape[2] - 6:
            budgets[0, 0] += 1
            budgets[0, 1] -= 1
        return budgets


class StarvesAHead(Zeros):
    """Declares what it does, and leaves no room for the protected tokens."""

    capabilities = Capabilities(head_wise=True)

    def allocate(self, scores: Tensor, budget: int, protected: Tensor) -> Tensor:
        budgets = super().allocate(scores, budget, protected)
        if scores.shape[1] > 1 and 2 * budget <= scores.shape[2]:
            budgets[0, 0], budgets[0, 1] = 2 * budget, 0
        return budgets


class KeepsOneFewer(Zeros):
    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        mask = super().select(scores, budgets, protected)
        first = mask[0, 0].nonzero()[:1]
        mask[0, 0, first] = False
        return mask


class KeepsOneMoreOfLongContexts(Zeros):
    """Right in every context that fits its block."""

    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        mask = super().select(scores, budgets, protected)
        if scores.shape[-1] > 100:
            mask[0, 0, (~mask[0, 0]).nonzero()[:1]] = True
        return mask


class ForgetsProtection(Zeros):
    def score(self, view: View) -> Tensor:
        return view.keys.float().sum(dim=-1)

    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        return super().select(scores, budgets, torch.zeros_like(protected))


class DropsTheFirstSink(Zeros):
    """An off-by-one: the best are looked for from the second token on."""

    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        if int(budgets.max()) == scores.shape[-1]:
            return super().select(scores, budgets, protected)
        later = super().select(scores[..., 1:], budgets, protected[1:])
        return torch.nn.functional.pad(later, (1, 0))


class SelectsPositions(Zeros):
    """Unsorted positions in place of a mask, as top-k gives them."""

    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        del protected
        return scores.topk(int(budgets.max()), dim=-1, sorted=False).indices


class SelectsALayerTooFew(Zeros):
    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        return super().select(scores, budgets, protected)[1:]


class StridesOverTokens(Zeros):
    """Every n-th token: another budget has another stride."""

    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        tokens = scores.shape[-1]
        spread = (torch.arange(tokens) * int(budgets[0, 0])) % tokens
        return super().select(-spread.float().expand_as(scores), budgets, protected)
