"""Keeping what belongs together, together: groups instead of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities, Policy
from kvharness_policies.wrapper import Wrapper

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Coupled(Wrapper):
    """Coupled projection (arXiv 2605.08234): whole groups of tokens, then single ones.

    Scores and budgets are the wrapped policy's. In each head, groups of ``group`` tokens in a row
    are ranked by the mean score of their tokens, protected ones left out; whole groups are kept in
    that order until the next one does not fit, and the highest scores outside them fill the budget
    exactly. With ``group=1`` it is the wrapped policy's choice by score.

    Args:
        scorer: whose scores.
        group: tokens a group; 16, ours, as the blocks of `ValueBlocks`.

    Source: the paper's third stage, which finds that filling the slack by tokens changes scores by
    0.1 points only. Deviations: the groups that matter are sentences, records and fields; a
    view has no text, so they are blocks of fixed length here.
    Not verified: the paper's figures.
    A larger budget may take a group whose room single tokens had before, so budgets do not nest.
    """

    capabilities = Capabilities(nested=False)

    group: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group < 1:
            raise ValueError(f"group={self.group}: expected 1 or more tokens")

    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        member = torch.arange(scores.shape[-1], device=scores.device) // self.group
        whole = self._whole(scores, budgets - protected.sum(), ~protected, member)
        # The highest scores fill what the protected tokens and whole groups leave.
        return Policy.select(self, scores, budgets, protected | whole[..., member])

    def _whole(self, scores: Tensor, room: Tensor, free: Tensor, member: Tensor) -> Tensor:
        """Groups that are kept whole, bool ``[layers, K, groups]``."""
        shape = (*scores.shape[:2], int(member[-1]) + 1)
        sizes = torch.zeros(shape[-1:], dtype=torch.int64, device=scores.device)
        sizes.index_add_(0, member, free.to(torch.int64))
        sums = torch.zeros(shape, dtype=torch.float64, device=scores.device)
        sums.index_add_(2, member, scores.double().masked_fill(~free, 0))
        means = (sums / sizes.clamp(min=1)).masked_fill(sizes == 0, -torch.inf)
        order = means.argsort(dim=-1, descending=True, stable=True)
        fits = sizes[order].cumsum(dim=-1) <= room[..., None]
        return torch.zeros_like(fits).scatter_(-1, order, fits)
