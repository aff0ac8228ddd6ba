"""Budgets and masks that are not what was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities
from tests.testing.broken.interface import Zeros

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice, View


class OneTooMany(Zeros):
    def allocate(self, choice: Choice) -> Tensor:
        budgets = super().allocate(choice)
        budgets[-1, -1] += 1
        return budgets


class RoundedDown(Zeros):
    """Budgets by layer in whole chunks, as ChunkKV keeps 0.415 of 205 tokens at 0.5."""

    def allocate(self, choice: Choice) -> Tensor:
        return super().allocate(choice) // 4 * 4


class HeadWiseUndeclared(Zeros):
    def allocate(self, choice: Choice) -> Tensor:
        budgets = super().allocate(choice)
        if choice.scores.shape[1] > 1 and 6 <= choice.budget < choice.scores.shape[2] - 6:
            budgets[0, 0] += 1
            budgets[0, 1] -= 1
        return budgets


class StarvesAHead(Zeros):
    """Declares what it does, and leaves no room for the protected tokens."""

    capabilities = Capabilities(head_wise=True)

    def allocate(self, choice: Choice) -> Tensor:
        budgets = super().allocate(choice)
        if choice.scores.shape[1] > 1 and 2 * choice.budget <= choice.scores.shape[2]:
            budgets[0, 0], budgets[0, 1] = 2 * choice.budget, 0
        return budgets


class KeepsOneFewer(Zeros):
    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        mask = super().select(choice, budgets)
        first = mask[0, 0].nonzero()[:1]
        mask[0, 0, first] = False
        return mask


class KeepsOneMoreOfLongContexts(Zeros):
    """Right in every context that fits its block."""

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        mask = super().select(choice, budgets)
        if choice.scores.shape[-1] > 100:
            mask[0, 0, (~mask[0, 0]).nonzero()[:1]] = True
        return mask


class ForgetsProtection(Zeros):
    def score(self, view: View) -> Tensor:
        return view.keys.float().sum(dim=-1)

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        bare = replace(choice, protected=torch.zeros_like(choice.protected))
        return super().select(bare, budgets)


class DropsTheFirstSink(Zeros):
    """An off-by-one: the best are looked for from the second token on."""

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        if int(budgets.max()) == choice.scores.shape[-1]:
            return super().select(choice, budgets)
        rest = replace(choice, scores=choice.scores[..., 1:], protected=choice.protected[1:])
        later = super().select(rest, budgets)
        return torch.nn.functional.pad(later, (1, 0))


class SelectsPositions(Zeros):
    """Unsorted positions in place of a mask, as top-k gives them."""

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        return choice.scores.topk(int(budgets.max()), dim=-1, sorted=False).indices


class SelectsALayerTooFew(Zeros):
    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        return super().select(choice, budgets)[1:]


class StridesOverTokens(Zeros):
    """Every n-th token: another budget has another stride."""

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        tokens = choice.scores.shape[-1]
        spread = (torch.arange(tokens) * int(budgets[0, 0])) % tokens
        strided = replace(choice, scores=-spread.float().expand_as(choice.scores))
        return super().select(strided, budgets)
