"""A top-k that gradients can follow, both through its scores and through k."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_BISECTIONS = 40


def soft_top_k(scores: Tensor, k: Tensor, temperature: float) -> Tensor:
    """Gates in (0, 1) that add up to ``k`` in each row: ``sigmoid((s - t) / T)``.

    ``t`` is found by bisection without gradients; one Newton step with gradients then makes the
    derivatives exact: with ``w = g (1 - g) / T`` and ``W = sum w``, ``dg_i/ds_j`` is
    ``w_i ([i = j] - w_j / W)`` and ``dg_i/dk`` is ``w_i / W``.

    Args:
        scores: ``[..., n]``.
        k: ``[...]``, real numbers from 0 to ``n``.
        temperature: towards 0 the gates become a hard top-k.
    """
    threshold = _threshold(scores.detach(), k.detach(), temperature)
    gates = torch.sigmoid((scores.detach() - threshold) / temperature)
    weight = (gates * (1 - gates)).sum(dim=-1, keepdim=True) / temperature
    there = torch.sigmoid((scores - threshold) / temperature).sum(dim=-1, keepdim=True)
    # Where k is 0 or n, every gate is closed or open and nothing depends on the threshold.
    moved = threshold + (there - k.unsqueeze(-1)) / weight.clamp(min=1e-12)
    moved = torch.where(weight > _FLAT, moved, threshold)
    return torch.sigmoid((scores - moved) / temperature)


_FLAT = 1e-9


@torch.no_grad()
def _threshold(scores: Tensor, k: Tensor, temperature: float) -> Tensor:
    reach = 30 * temperature
    low = scores.amin(dim=-1, keepdim=True) - reach
    high = scores.amax(dim=-1, keepdim=True) + reach
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        many = torch.sigmoid((scores - middle) / temperature).sum(dim=-1, keepdim=True)
        above = many > k.unsqueeze(-1)
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2
