"""Mean attention from the whole context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import ColumnSums, Policy
from kvharness_policies.column_sums import mean_received

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class PrefillAttention(Policy):
    """Mean attention a token received from the context queries that see it.

    Score: ``s[k, j] = mean over h in group(k) of (sum_i A[h, i, j]) / (n - j)``; column sums
    ``[H, n]`` to ``[K, n]``, ``i`` over all ``n`` causal queries.
    Source: ``ObservedAttentionPress`` of NVIDIA/kvpress; no paper. No parameters.
    Not H2O: without the divisor the sum favours early tokens, and the two keep very different
    sets. Pitfall kept as it is: the last tokens are means over few queries and noisy; the last
    one is its attention to itself. Only the contract's recents shield from that.
    """

    needs = frozenset({ColumnSums()})

    def score(self, view: View) -> Tensor:
        return mean_received(view)
