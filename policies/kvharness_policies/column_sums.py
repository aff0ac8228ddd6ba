"""The attention each token received from the whole context."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvharness import group_mean

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


def mean_received(view: View) -> Tensor:
    """Mean attention of the context queries that see a token: float32 ``[K, n]``."""
    sums = column_sums(view)
    seen_by = torch.arange(view.tokens, 0, -1, device=sums.device)
    return group_mean(sums / seen_by, view.kv_heads)


def column_sums(view: View) -> Tensor:
    if view.column_sums is None:
        msg = "this view carries no column sums; declare needs = Needs(column_sums=True)"
        raise ValueError(msg)
    return view.column_sums.float()
