"""The attention each token received from the whole context."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvharness import ColumnSums, group_mean

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


def mean_received(view: View) -> Tensor:
    """Mean attention of the context queries that see a token: float32 ``[K, n]``."""
    sums = view[ColumnSums()]
    seen_by = torch.arange(view.tokens, 0, -1, device=sums.device)
    return group_mean(sums / seen_by, view.kv_heads)
