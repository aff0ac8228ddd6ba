"""What was pivotal in the recent past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities, Policy, Protection, Queries, group_mean, window_attention

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Step, View


_RECORDS = ("count", "mean")
#: Attention this close below even attention counts as even: equal keys must not be told apart by
#: rounding.
_EVEN = 1 - 1e-3


@dataclass(frozen=True)
class Scissorhands(Policy):
    """Scissorhands (arXiv 2305.17118): what was pivotal in the recent past stays.

    Score, ``record="count"``: ``s[k, j] = -mean over h in group(k) of #{i in the last window,
    i >= j : A[h, i, j] < 1 / (i + 1)}``, how often a token got less than even attention;
    ``record="mean"``: the mean over the window of ``A[h, i, j]``. ``[H, w, n]`` to ``[K, n]``.
    Protects the last ``recents`` tokens.

    Defaults: ``window = 400, recents = 10``, those of the VATP repository's implementation, which
    uses the mean; the count is the paper's record as known second-hand.
    Source: no official code was found. Deviations: by default one eviction at the end of prefill;
    evicting while decoding, one for each new token, where the paper drops half the budget whenever
    the cache is full. A new token's row then enters the record as one of the window's, even
    attention is over what the cache holds, and rows are never forgotten; budgets are uniform, the
    paper gives later layers more; the mean over the query group is ours. Pitfall kept as it is: a
    token that came late has been counted in fewer rows, so the count favours recent tokens. At a
    quarter of 1,024 tokens 0.93 of what it keeps is what `Position` keeps, at a tenth 0.89; with
    ``record="mean"`` 0.48 and 0.28 (embedded model).
    Not verified: the paper's rule, its layer budgets and its tables.
    """

    capabilities = Capabilities(decodes=True)

    window: int = 400
    recents: int = 10
    record: str = "count"

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window={self.window}: expected 1 or more queries")
        if self.recents < 0:
            raise ValueError(f"recents={self.recents}: expected 0 or more tokens")
        if self.record not in _RECORDS:
            raise ValueError(f"record={self.record!r}: expected one of {', '.join(_RECORDS)}")

    @property
    def needs(self) -> frozenset[Queries]:
        return frozenset({Queries(self.window)})

    def score(self, view: View) -> Tensor:
        attention = window_attention(view)
        if self.record == "mean":
            return group_mean(attention.mean(dim=1), view.kv_heads)
        return -group_mean(_low(attention), view.kv_heads)

    def step(self, step: Step) -> Tensor:
        """The record goes on: each new token adds its row."""
        attention = window_attention(step.view)
        added = attention.sum(dim=1) / self.window if self.record == "mean" else -_low(attention)
        return step.scores + group_mean(added, step.view.kv_heads)

    def protect(self, tokens: int, budget: int) -> Protection:
        del tokens, budget
        return Protection(sinks=0, recents=self.recents)


def _low(attention: Tensor) -> Tensor:
    """How many of the rows ``[H, w, n]`` that see a token gave it less than even attention."""
    tokens = attention.shape[-1]
    order = torch.arange(tokens, device=attention.device)
    rows = order[tokens - attention.shape[1] :, None]
    low = (attention * (rows + 1) < _EVEN) & (order <= rows)
    return low.sum(dim=1).float()
