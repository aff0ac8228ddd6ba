"""Heavy hitters of summed attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import Capabilities, ColumnSums, Protection, group_mean
from kvharness_policies.rescoring import Rescoring

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class H2O(Rescoring):
    """H2O (arXiv 2306.14048): heavy hitters of summed attention, and the recent half.

    Score: ``s[k, j] = mean over h in group(k) of sum_i A[h, i, j]``; ``[H, n]`` to ``[K, n]``.
    Protects the last ``b // 2`` tokens and no sinks of its own.
    Default: the even split is that of the official scripts (10% heavy and 10% recent, or 1024
    and 1024); other official paths split otherwise (class 4/512, streaming 48/2000). The odd
    entry goes to the heavy hitters.
    Deviations: the mean over the query group, as the official code is for MHA only; the official
    lm_eval path, whose sums include future queries, is not reproduced. By default it evicts once,
    at the end of prefill; evicting while decoding it goes on as the official code does: each new
    token's attention is added to the sums, and what is evicted takes its sum along. Not verified:
    the paper's accuracy at 20%.
    Nested although the recents grow with the budget: neither part shrinks, so a heavy hitter
    stays one until the recents take it over.
    """

    needs = frozenset({ColumnSums()})
    capabilities = Capabilities(decodes=True)

    def score(self, view: View) -> Tensor:
        return group_mean(view[ColumnSums()], view.kv_heads)

    def protect(self, tokens: int, budget: int) -> Protection:
        del tokens
        return Protection(sinks=0, recents=budget // 2)
