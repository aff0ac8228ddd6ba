"""What is read on top of a full cache, and what a layer makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """``ids`` to read at once after the context, about its tokens ``first .. last - 1``."""

    ids: tuple[int, ...]
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What one layer made of one part of a probe; ``m`` tokens, other letters as in `View`.

    Attributes:
        queries: ``[H, m, d]``, post-RoPE.
        keys: ``[K, m, d]``, post-RoPE: beside the context's, each query sees those up to its own.
        first: the part is about the context tokens ``first .. last - 1``.
        last: one past them.
    """

    queries: Tensor
    keys: Tensor
    first: int
    last: int
