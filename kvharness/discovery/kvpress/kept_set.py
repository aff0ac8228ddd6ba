"""Which tokens a press kept, read off what it returned: never from the order of its slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvharness.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

#: Integers of the size of each dtype: bits are compared, so that -0.0 and NaN are no special case.
_KINDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def masked_out(masked: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
    """Keep mask, bool ``[K, n]``, of a press that masks entries: ``masked_key_indices`` inverted.

    Args:
        masked: batch, head and token of each masked entry.
        shape: ``K`` and ``n``.
    """
    _, heads, tokens = (part.cpu() for part in masked)
    kept = torch.ones(shape, dtype=torch.bool)
    kept[heads, tokens] = False
    return kept


def returned(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> Tensor:
    """Keep mask, bool ``[K, n]``, of a press that returns fewer entries in any order.

    Tokens with equal keys and values are one to every later query; the earliest count.

    Args:
        before: keys and values ``[K, n, d]``.
        after: what came back, ``[K, m, d]``.

    Raises:
        UsageProblem: an entry came back that was not there before.
    """
    old, new = _bits(before), _bits(after)
    kept = torch.zeros(old.shape[:2], dtype=torch.bool, device=old.device)
    for head in range(old.shape[0]):
        place = _places(_hashes(old[head]), _hashes(new[head]))
        if not torch.equal(old[head, place], new[head]) or len(place.unique()) < len(place):
            raise UsageProblem(
                "the press changes the keys or values that it keeps, so that there is no set of "
                "kept tokens to evict by"
            )
        kept[head, place] = True
    return kept.cpu()


def _bits(entries: tuple[Tensor, Tensor]) -> Tensor:
    """Keys and values side by side as integers, ``[K, n, 2 d]``."""
    rows = torch.cat(entries, dim=-1).contiguous()
    return rows.view(_KINDS[rows.element_size()])


def _hashes(rows: Tensor) -> Tensor:
    """An int64 for each row; what collides is told apart afterwards, by the rows themselves."""
    generator = torch.Generator().manual_seed(rows.shape[1])
    factors = torch.randint(-(1 << 62), 1 << 62, (rows.shape[1],), generator=generator)
    return (rows.long() * factors.to(rows.device)).sum(dim=1)


def _places(old: Tensor, new: Tensor) -> Tensor:
    """Where each of ``new`` stands in ``old``; equal ones get a place each."""
    there, order = old.sort(stable=True)
    given, back = new.sort(stable=True)
    rank = torch.arange(len(given), device=new.device) - torch.searchsorted(given, given)
    index = (torch.searchsorted(there, given) + rank).clamp(max=len(there) - 1)
    places = torch.empty_like(back)
    places[back] = order[index]
    return places
