"""Scores that rank no tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


def zero_scores(view: View) -> Tensor:
    shape = (view.kv_heads, view.tokens)
    return torch.zeros(shape, dtype=torch.float32, device=view.keys.device)
