"""Integer budgets that add up exactly, from real ones that need not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_BISECTIONS = 60


def exact_budgets(wanted: Tensor, *, total: int, low: int, high: int) -> Tensor:
    """Whole entries for each head, in proportion to what is wanted.

    What is wanted above ``low`` is scaled until the heads, none beyond ``high``, add up to
    ``total``; then rounded down, and the largest remainders get the rest, earlier heads first.

    Args:
        wanted: real numbers ``[layers, K]``, at least ``low``; only their proportions count.
        total: entries of all heads together.
        low: least entries of a head, such as the protected tokens.
        high: most entries of a head: the tokens there are.

    Returns:
        int64 ``[layers, K]`` on the CPU.

    Raises:
        ValueError: no such budgets exist.
    """
    heads = wanted.numel()
    if not low * heads <= total <= high * heads:
        raise ValueError(
            f"{total} entries for {heads} heads: expected from {low * heads} to {high * heads}, "
            f"between {low} and {high} a head"
        )
    above = (wanted.detach().to("cpu", torch.float64).flatten() - low).clamp(min=0)
    # A head that wants nothing must still be able to take what the others cannot hold.
    above = above + 1e-9 * (1 + above.max())
    real = _scaled(above, total - low * heads, high - low)
    whole = real.floor().to(torch.int64)
    missing = total - low * heads - int(whole.sum())
    order = (real - whole).masked_fill(whole >= high - low, -1.0)
    whole[order.argsort(descending=True, stable=True)[:missing]] += 1
    return (whole + low).view(wanted.shape)


def _scaled(above: Tensor, total: int, room: int) -> Tensor:
    """``min(room, c * above)`` that adds up to ``total``."""
    if total >= room * len(above):
        return torch.full_like(above, room)
    smallest, largest = 0.0, room / float(above.min())
    for _ in range(_BISECTIONS):
        middle = (smallest + largest) / 2
        many = float((above * middle).clamp(max=room).sum())
        smallest, largest = (middle, largest) if many <= total else (smallest, middle)
    return (above * smallest).clamp(max=room)
