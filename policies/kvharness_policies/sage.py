"""What the last token asks for, by head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import Needs, Policy, Protection, window_attention

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class SageKV(Policy):
    """SAGE-KV (arXiv 2503.08879): attention of the last token, by head, beside sinks and recents.

    Score: ``s[k, j] = max over h in group(k) of A[h, n - 1, j]``; ``[H, 1, n]`` to ``[K, n]``.
    Protects the first ``sinks`` tokens and the last ``recents``, the last token among them.

    Defaults: ``sinks = 4, recents = 64``: ours, and so is the maximum over the query group; the
    paper stresses selection by head.
    Source: the abstract and a second-hand summary; no official code was found. Deviations: the
    cache grows while decoding, where the paper's recents roll on and forget. It is TOVA by head
    with protections, and close to SnapKV with a window of 1: noisy, as one token decides.
    Not verified: the paper's sizes, treatment of groups and positions, and its tables.
    """

    needs = Needs(queries=1)

    sinks: int = 4
    recents: int = 64

    def __post_init__(self) -> None:
        for name, number in (("sinks", self.sinks), ("recents", self.recents)):
            if number < 0:
                raise ValueError(f"{name}={number}: expected 0 or more tokens")

    def score(self, view: View) -> Tensor:
        last = window_attention(view)[:, -1]
        largest: Tensor = last.unflatten(0, (view.kv_heads, -1)).amax(dim=1)
        return largest

    def protect(self, tokens: int, budget: int) -> Protection:
        del tokens, budget
        return Protection(sinks=self.sinks, recents=self.recents)
