"""Keeping what belongs together, together: groups instead of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import torch

from kvharness import Boundaries, Capabilities, Policy, Wrapper

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice, Trace


class Groups(StrEnum):
    """What belongs together."""

    SENTENCES = "sentences"
    BLOCKS = "blocks"


@dataclass(frozen=True)
class Coupled(Wrapper):
    """Coupled projection (arXiv 2605.08234): whole groups of tokens, then single ones.

    Scores and budgets are the wrapped policy's. In each head, groups of tokens in a row are ranked
    by the mean score of their tokens, protected ones left out; whole groups are kept in that order
    until the next one does not fit, and the highest scores outside them fill the budget exactly.
    With blocks of 1 it is the wrapped policy's choice by score.

    Args:
        scorer: whose scores.
        groups: ``"sentences"``: sentences and lines, which records take one of; or ``"blocks"``,
            of fixed length, which need no text.
        group: tokens a block; 16, ours, as the blocks of `ValueBlocks`.

    Source: the paper's third stage, which finds that filling the slack by tokens changes scores by
    0.1 points only. Ours: where a sentence ends is told by its full stop; the paper's fields, parts
    of a record, are not told apart; and the order by mean score.
    Not verified: the paper's figures.
    It makes the last choice itself, so it wraps no policy that does so too, such as `CriticalKV`.
    A larger budget may take a group whose room single tokens had before, so budgets do not nest.
    """

    own_capabilities = Capabilities(nested=False)

    groups: str = Groups.SENTENCES
    group: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect_plain_selection()
        if self.groups not in set(Groups):
            raise ValueError(f"groups={self.groups!r}: expected one of {', '.join(Groups)}")
        if self.group < 1:
            raise ValueError(f"group={self.group}: expected 1 or more tokens")

    @property
    def own_needs(self) -> frozenset[Boundaries]:
        return frozenset({Boundaries()} if self.groups == Groups.SENTENCES else ())

    def _members_of(self, trace: Trace) -> Tensor:
        """Which group each token is in, int64 ``[n]``."""
        if self.groups == Groups.BLOCKS:
            return torch.arange(trace.tokens, device=trace.positions.device) // self.group
        ends = trace.views[0][Boundaries()]
        return ends.cumsum(dim=0) - ends.long()

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        member, protected = self._members_of(choice.trace), choice.protected
        room = budgets - protected.sum()
        whole = self._whole(choice.scores, room, ~protected, member)
        # The highest scores fill what the protected tokens and whole groups leave.
        kept = replace(choice, protected=protected | whole[..., member])
        return Policy.select(self, kept, budgets)

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
