"""Pooled attention of the last queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import avg_pool1d, max_pool1d, pad

from kvharness import Policy, Protection, Queries, group_mean, window_attention

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


_POOLINGS = ("max", "avg", "none")


@dataclass(frozen=True)
class SnapKV(Policy):
    """SnapKV (arXiv 2404.14469): pooled attention of the last ``window`` queries.

    Score, for the prefix ``j < n - w``: ``s[k, j] = mean over h in group(k) of
    pool_j(mean over the window of A[h, i, j])``; ``A`` is ``[H, w, n]``, softmax over all
    ``n`` with the causal mask inside the window; pooled ``[H, n - w]`` with stride 1 and
    padding ``kernel // 2``; result ``[K, n]``. The window itself scores 0 and is protected:
    pooling never sees it. With ``n <= window`` there is no prefix and all scores are 0.

    Defaults: ``window = 32, kernel = 7, pooling = "max"``, those of the official LongBench
    configurations. Others: official class avg/5/64, ``init_snapkv`` avg/5/32, KVCache-Factory
    max/7/8, kvpress avg/5/64. ``"avg"`` counts the zero padding, as officially: it
    under-scores the first and last ``kernel // 2`` tokens of the prefix.
    Deviations: the official code ranks per query head, with the cache blown up to ``H`` heads.
    Here, as in kvpress, each query head is pooled as officially and the group mean comes last;
    the AdaKV repository takes the group mean first, which differs under max-pooling. Mean over
    the window instead of the sum: the same ranking. No lower limit on the context.
    Published results compress the whole prompt (``--kv-question=prompt``). Not
    verified: the paper's own hyper-parameters; these are from code.

    A budget that the window fills leaves nothing to choose: up to 36 entries with 4 sinks (0.035 of
    1,024 tokens) it keeps what `Position` keeps.
    Nested: a budget too small for the window keeps fewer recents, all of which a larger budget
    keeps too; beyond that the protection is fixed and so are the scores.
    """

    window: int = 32
    kernel: int = 7
    pooling: str = "max"

    def __post_init__(self) -> None:
        if self.window < 1:
            msg = f"window={self.window}: expected 1 or more queries"
            raise ValueError(msg)
        if self.kernel < 1 or self.kernel % 2 == 0:
            msg = f"kernel={self.kernel}: expected an odd number, 1 or more"
            raise ValueError(msg)
        if self.pooling not in _POOLINGS:
            msg = f"pooling={self.pooling!r}: expected one of {', '.join(_POOLINGS)}"
            raise ValueError(msg)

    @property
    def needs(self) -> frozenset[Queries]:
        return frozenset({Queries(self.window)})

    def score(self, view: View) -> Tensor:
        attention = window_attention(view)
        window = attention.shape[1]
        prefix = view.tokens - window
        if prefix == 0:
            shape = (view.kv_heads, view.tokens)
            return torch.zeros(shape, dtype=torch.float32, device=attention.device)
        received = attention[:, :, :prefix].mean(dim=1)
        return pad(group_mean(self._pool(received), view.kv_heads), (0, window))

    def protect(self, tokens: int, budget: int) -> Protection:
        del tokens, budget
        return Protection(sinks=0, recents=self.window)

    def _pool(self, scores: Tensor) -> Tensor:
        if self.pooling == "none":
            return scores
        pool = max_pool1d if self.pooling == "max" else avg_pool1d
        pooled: Tensor = pool(scores, self.kernel, stride=1, padding=self.kernel // 2)
        return pooled
