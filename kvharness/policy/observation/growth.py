"""One layer between evictions: what its new tokens are, and what they attend to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One layer after new tokens were read on top of what cells hold, before anything is evicted.

    Shapes: ``R`` rows are (cell, KV head) pairs, each read by ``G`` query heads; ``t`` new tokens,
    ``m`` entries with them, oldest first.

    Attributes:
        query: ``[R, G, t, d]``.
        keys: ``[R, m, d]``.
        scaling: the factor on query-key products.
        visible: bool ``[t, m]``, what each new token sees; None if a single one sees all.
        positions: int64 ``[R, m]``, of the entries in the text.
        whole: what the observation made of the layer of the whole context; None if there was none.
    """

    query: Tensor
    keys: Tensor
    scaling: float
    visible: Tensor | None
    positions: Tensor
    whole: Any = None

    def of(self, whole: Any) -> Growth:
        """The same for another observation; attention that was computed stays so."""
        other = replace(self, whole=whole)
        if "attention" in vars(self):
            vars(other)["attention"] = self.attention
        return other

    @cached_property
    def attention(self) -> Tensor:
        """What the new tokens pay to the entries: float32 ``[R, G, t, m]``, rows sum to 1."""
        logits = self.query.float() @ self.keys.float().transpose(1, 2)[:, None] * self.scaling
        if self.visible is not None:
            logits = logits.masked_fill(~self.visible, float("-inf"))
        return logits.softmax(dim=-1)
