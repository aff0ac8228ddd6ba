"""Which entries the highest scores and the protection keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.contract import Protection


def protected_mask(tokens: int, protection: Protection) -> Tensor:
    """Bool ``[tokens]``, True at the sinks and recents."""
    mask = torch.zeros(tokens, dtype=torch.bool)
    mask[: protection.sinks] = True
    mask[max(0, tokens - protection.recents) :] = True
    return mask


def top_entries(scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
    """Protected tokens first, then the highest scores; the earlier position wins a tie.

    Protection is a mask and never a large score: padding with the maximum ties with it.

    Args:
        scores: float32 ``[..., n]``, finite.
        budgets: int64 ``[...]``.
        protected: bool ``[n]``.

    Returns:
        Keep mask, bool ``[..., n]``, with exactly ``budgets`` entries True in each row.
    """
    keyed = scores.masked_fill(protected, float("inf"))
    order = keyed.argsort(dim=-1, descending=True, stable=True)
    within = torch.arange(scores.shape[-1], device=scores.device) < budgets.unsqueeze(-1)
    return torch.zeros_like(within).scatter_(-1, order, within)
