"""A check of scores that are taken for attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def expect_attention(scores: Tensor, name: str) -> None:
    if bool((scores < 0).any()):
        raise ValueError(
            f"{name} takes scores for attention, and these go down to {float(scores.min()):.3g}; "
            f"wrap a policy whose scores are 0 or more, such as h2o, tova or snapkv"
        )
