"""Integer budgets that add up exactly: from real ones that need not, or from scores."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_BISECTIONS = 60


class Scope(StrEnum):
    """Within what entries go to the highest scores; outside it they are shared evenly."""

    HEAD = "head"
    LAYER = "layer"
    MODEL = "model"


def shared_budgets(
    scores: Tensor,
    budget: int,
    protected: Tensor,
    *,
    scope: Scope,
    weights: Tensor | None = None,
    safeguard: float = 0.0,
) -> Tensor:
    """Budgets from layer weights, and from how the best scores fall among heads.

    All heads hold the protected tokens; only the entries beyond them are shared. Layers get them
    in proportion to ``weights``, up to the context's length. Within ``scope`` they belong to its
    highest scores, protected tokens left out, and a head gets ``(1 - safeguard)`` of how many of
    these are its own, and ``safeguard`` of an even share (Ada-KV's mixture).

    Args:
        scores: float32 ``[layers, K, n]``; of equal ones the earlier head's and token's count.
        budget: mean entries of a head.
        protected: bool ``[n]``.
        scope: ``HEAD`` gives heads of a layer alike; ``MODEL`` moves entries between layers by
            score, so that it takes no weights.
        weights: numbers from 0, ``[layers]``; uniform when None.
        safeguard: from 0, where scores alone decide, to 1, where they do not.

    Returns:
        int64 ``[layers, K]`` on the CPU, which adds up to ``budget * layers * K``.

    Raises:
        ValueError: weights or safeguard out of range, or a budget that cannot hold the protected.
    """
    layers, heads, tokens = scores.shape
    low = int(protected.sum())
    _check_shares(scope, weights, safeguard)
    free = _free_of_layers(weights, layers, heads, budget=budget, low=low, tokens=tokens)
    if scope is Scope.HEAD or low == tokens:
        return _rounded(_even(free, heads), free, tokens - low) + low
    rows = scores[..., ~protected.to(scores.device)].flatten(1)
    if scope is Scope.MODEL:
        rows, free = rows.view(1, -1), free.sum(dim=0, keepdim=True)
    own = _own_of_heads(rows, free, rows.shape[1] // (tokens - low))
    wanted = (1 - safeguard) * own + safeguard * _even(free, own.shape[1])
    return (_rounded(wanted, free, tokens - low) + low).view(layers, heads)


def _check_shares(scope: Scope, weights: Tensor | None, safeguard: float) -> None:
    if not 0 <= safeguard <= 1:
        raise ValueError(f"safeguard={safeguard}: expected a share from 0 to 1")
    if weights is None:
        return
    if scope is Scope.MODEL:
        raise ValueError("layer weights: scope 'model' moves entries between layers by score")
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError(f"layer weights {weights.tolist()}: expected finite numbers from 0")


def _free_of_layers(
    weights: Tensor | None, layers: int, heads: int, *, budget: int, low: int, tokens: int
) -> Tensor:
    """Entries beyond the protected of each layer, int64 ``[layers]``."""
    total = (budget - low) * layers * heads
    wanted = torch.ones(layers) if weights is None else weights
    return exact_budgets(wanted, total=total, low=0, high=(tokens - low) * heads)


def _own_of_heads(rows: Tensor, free: Tensor, heads: int) -> Tensor:
    """How many of the best ``free`` of each row are of each head: float64 ``[rows, heads]``."""
    order = rows.argsort(dim=1, descending=True, stable=True)
    best = torch.arange(rows.shape[1], device=rows.device) < free.to(rows.device)[:, None]
    chosen = torch.zeros_like(best).scatter_(1, order, best)
    own: Tensor = chosen.unflatten(1, (heads, -1)).sum(dim=2)
    return own.cpu().double()


def _even(free: Tensor, heads: int) -> Tensor:
    return (free.double() / heads)[:, None].expand(-1, heads)


def _rounded(real: Tensor, totals: Tensor, high: int) -> Tensor:
    """Whole numbers of which each row adds up to its total, the largest remainders up."""
    whole = real.floor().to(torch.int64)
    missing = totals - whole.sum(dim=1)
    rest = (real - whole).masked_fill(whole >= high, -1.0)
    order = rest.argsort(dim=1, descending=True, stable=True)
    up = torch.arange(real.shape[1]) < missing[:, None]
    return whole + torch.zeros_like(whole).scatter_(1, order, up.to(torch.int64))


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
    totals = torch.tensor([total - low * heads])
    return (_rounded(real[None], totals, high - low)[0] + low).view(wanted.shape)


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
