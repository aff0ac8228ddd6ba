"""Labels of importance, and the loss of a scorer against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from kvharness_policies.sip.scorer import HORIZONS

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from kvharness_policies.sip.scorer import Outlook

#: Share of the tokens that count as important.
TOP = 0.25
_PAIRS = 256


def horizon_attention(future: Tensor) -> Tensor:
    """Mean attention of the first 1, 4, 16 and 64 future tokens, ``[..., 4, n]``.

    Args:
        future: attention of each of them, ``[..., 64, n]``.
    """
    return torch.stack([future[..., :ahead, :].mean(dim=-2) for ahead in HORIZONS], dim=-2)


def top_labels(attention: Tensor) -> Tensor:
    """Whether a token is among the quarter most attended, bool ``[..., n]``.

    Ties go to the earlier token.
    """
    count = round(TOP * attention.shape[-1])
    order = attention.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return torch.zeros_like(attention, dtype=torch.bool).scatter_(-1, order, value=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The parts of a scorer's loss; ``bce`` in nats."""

    bce: Tensor
    ranking: Tensor
    brier: Tensor

    @property
    def total(self) -> Tensor:
        return self.bce + 0.5 * self.ranking + 0.1 * self.brier


def loss(outlook: Outlook, labels: Tensor, rng: Generator) -> Loss:
    """How far a scorer is from labels bool ``[B, n, 4]``.

    Cross-entropy over horizons; a hinge of margin 1 on the score of 256 pairs of a head, one of
    them important at the longest horizon; and the squared error of the confidence.
    """
    wanted = labels.float()
    right = (outlook.important.detach() > 0) == labels
    brier = (outlook.confidence.sigmoid() - right.float()).square().mean()
    return Loss(
        bce=binary_cross_entropy_with_logits(outlook.important, wanted),
        ranking=_hinge(outlook.score, labels[..., -1], rng),
        brier=brier,
    )


def _hinge(score: Tensor, labels: Tensor, rng: Generator) -> Tensor:
    chosen = [
        torch.multinomial(side.float(), _PAIRS, replacement=True, generator=rng)
        for side in (labels, ~labels)
    ]
    above, below = (score.gather(1, index) for index in chosen)
    return (1 - (above - below)).clamp(min=0).mean()
