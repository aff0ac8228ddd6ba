"""One layer of a case that the conformance kit draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.pretrained.prompt import Encoder


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One layer of a case that the conformance kit draws; letters as in `View`.

    Attributes:
        queries: ``[H, n, d]``, of all tokens.
        keys, values: ``[K, n, d]``.
        scaling: the factor on query-key products.
        ahead: float32 ``[H, n]``, in place of `Ahead.attention`.
        similarity: from 0 to 1, another one for each layer.
        encoder: of text, whose ids are below 97.
        chunk: queries a step, for sums over all of them.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    scaling: float
    ahead: Tensor
    similarity: float
    encoder: Encoder
    chunk: int

    @property
    def tokens(self) -> int:
        return int(self.keys.shape[1])
