"""The attention that each key of a context receives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

#: Queries per step of the column sums: bounds memory at H x 256 x n floats, and is fixed
#: because another size adds the same numbers in another order.
_CHUNK = 256


def column_sums(query: Tensor, key: Tensor, scaling: float, *, chunk: int = _CHUNK) -> Tensor:
    """Attention each key receives from all queries, in chunks: never an ``n x n`` matrix.

    Args:
        query: ``[H, n, d]``.
        key: ``[K, n, d]``.
        scaling: factor on the products.
        chunk: queries per step.

    Returns:
        float32 ``[H, n]``.
    """
    heads, tokens, size = query.shape
    kv_heads = key.shape[0]
    wide = key.float()
    sums = torch.zeros(heads, tokens, device=query.device)
    order = torch.arange(tokens, device=query.device)
    for start in range(0, tokens, chunk):
        end = min(start + chunk, tokens)
        rows = query[:, start:end].float().reshape(kv_heads, -1, size)
        logits = (rows @ wide[:, :end].transpose(1, 2)).mul_(scaling).view(heads, end - start, end)
        diagonal = logits[..., start:end]
        diagonal.masked_fill_(order[None, start:end] > order[start:end, None], float("-inf"))
        sums[:, :end] += logits.softmax(dim=-1).sum(dim=1)
    return sums
