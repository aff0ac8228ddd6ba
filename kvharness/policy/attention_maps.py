"""The arithmetic on attention that policies share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kvharness.policy.observation.part import Probed
    from kvharness.policy.view import View

#: Tokens of a probe per step of its attention: bounds memory at H x 256 x n floats.
_ROWS = 256


def window_attention(view: View) -> Tensor:
    """Attention of the recorded window on every cached token, causal inside the window.

    Returns:
        float32 ``[H, w, n]``; each row sums to 1.

    Raises:
        ValueError: the view carries no queries (declare `Queries`).
    """
    if view.queries is None:
        msg = "this view carries no queries; declare needs = frozenset({Queries(count=...)})"
        raise ValueError(msg)
    return causal_attention(view.queries, view.keys, view.scaling)


def causal_attention(queries: Tensor, keys: Tensor, scaling: float) -> Tensor:
    """Softmax attention of the last ``w`` tokens of ``n``.

    Args:
        queries: ``[H, w, d]`` of tokens ``n - w .. n - 1``.
        keys: ``[K, n, d]``.
        scaling: factor on the products.

    Returns:
        float32 ``[H, w, n]``.
    """
    heads, window, size = queries.shape
    kv_heads, tokens, _ = keys.shape
    folded = queries.float().reshape(kv_heads, -1, size)
    logits = (folded @ keys.float().transpose(1, 2)).mul_(scaling).view(heads, window, tokens)
    order = torch.arange(tokens, device=keys.device)
    unseen = order[None, :] > order[tokens - window :, None]
    return logits.masked_fill_(unseen, float("-inf")).softmax(dim=-1)


def probe_attention(view: View, part: Probed, *, seen: Tensor | None = None) -> Iterator[Tensor]:
    """Attention of a probe's tokens on the context, for so many of them at a time.

    Each softmax is over the context and the probe's tokens up to its own.

    Args:
        view: whose keys are attended to.
        part: of a probe that the view carries.
        seen: int64 ``[s]``, the context tokens in the softmax; all ``n`` when None.

    Yields:
        float32 ``[H, rows, s]``; a row sums to 1 less what the probe's own tokens get.
    """
    context = view.keys if seen is None else view.keys[:, seen]
    for start in range(0, part.queries.shape[1], _ROWS):
        end = min(start + _ROWS, part.queries.shape[1])
        keys = torch.cat((context, part.keys[:, :end]), dim=1)
        attention = causal_attention(part.queries[:, start:end], keys, view.scaling)
        yield attention[..., : context.shape[1]]


def group_mean(scores: Tensor, kv_heads: int) -> Tensor:
    """Mean over the query heads that share a KV head: ``[H, ...]`` to ``[K, ...]``."""
    return scores.reshape(kv_heads, -1, *scores.shape[1:]).mean(dim=1)
