"""Mean attention of the queries nearest to decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness import Policy, Queries, group_mean, window_attention

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class DecodeProximal(Policy):
    """Evidence recovery (arXiv 2605.08234): mean attention, of the queries nearest to decoding.

    Score: ``s[k, j] = mean over h in group(k) of (sum_i r_i A[h, i, j]) / (sum_{i >= j} r_i)``
    over the last ``window`` queries ``i`` with ``r_i = exp(-(n - 1 - i) / tau)``; ``[H, w, n]`` to
    ``[K, n]``. The divisor removes the exposure bias of summed attention, to tokens that more
    queries see; the weights let the queries that are most like decoding decide.
    It is the third step of that paper's ladder: the first, summed attention, is `H2O` without its
    recents, and the second, the same without exposure bias, is `PrefillAttention`, which this is
    with all queries and a large ``tau``.

    Defaults: ``window = 128, tau = 32``: ours; the paper names the steps and gives no numbers, nor
    a formula for this one. Its fourth step, denoising between layers, is left out: it added 0.2.
    Not verified: the paper's ladder (7.2, 25.8, 33.2, 33.4 of 35.6).
    """

    window: int = 128
    tau: float = 32.0

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window={self.window}: expected 1 or more queries")
        if not self.tau > 0:
            raise ValueError(f"tau={self.tau}: expected a number of tokens above 0")

    @property
    def needs(self) -> frozenset[Queries]:
        return frozenset({Queries(self.window)})

    def score(self, view: View) -> Tensor:
        attention = window_attention(view)
        rows = attention.shape[1]
        weights = (torch.arange(1 - rows, 1, device=attention.device) / self.tau).exp()
        seen_by = torch.ones(view.tokens, device=attention.device) * weights.sum()
        # From the last row on: a token of the window is seen by the rows from its own.
        seen_by[view.tokens - rows :] = weights.flip(0).cumsum(0).flip(0)
        received = (attention * weights[:, None]).sum(dim=1)
        return group_mean(received / seen_by, view.kv_heads)
