"""The first tokens and the last, where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities
from kvharness_policies.rescoring import Rescoring

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class Position(Rescoring):
    """The first ``sinks`` and the last ``b - sinks`` tokens, at their original positions.

    Score: ``s[k, j] = n`` for ``j < sinks``, else ``j``; shape ``[K, n]``. It ranks all
    positions, so at any budget the set is as named without the help of the contract's
    protection. Two things can bend it: contract sinks beyond ``sinks``, and contract recents
    that leave no room for ``sinks``. A budget below ``sinks`` keeps the earliest of them.
    Source: no paper; NVIDIA/kvpress has it as ``StreamingLLMPress`` without re-rotation,
    KVCache-Factory as "StreamingLLM". It is the null model: what recency alone is worth.
    Default: ``sinks = 4``, kvpress's ``n_sink``.
    Deviations: kvpress scores 1 and 0 and lets top-k ties decide when the budget is below 4.
    Evicting while decoding, its window rolls on.
    """

    capabilities = Capabilities(decodes=True)

    sinks: int = 4

    def __post_init__(self) -> None:
        if self.sinks < 0:
            msg = f"sinks={self.sinks}: expected 0 or more"
            raise ValueError(msg)

    def score(self, view: View) -> Tensor:
        # float32 counts exactly up to 2**24 tokens.
        order = torch.arange(view.tokens, dtype=torch.float32, device=view.keys.device)
        order[: self.sinks] = view.tokens
        return order.repeat(view.kv_heads, 1)
