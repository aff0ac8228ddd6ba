"""What the last token asks for, by head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import Capabilities, Policy, Protection, Queries, window_attention

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Step, View


#: Below all attention.
_LEAVES = -1.0


@dataclass(frozen=True)
class SageKV(Policy):
    """SAGE-KV (arXiv 2503.08879): attention of the last token, by head, beside sinks and recents.

    Score: ``s[k, j] = max over h in group(k) of A[h, n - 1, j]``; ``[H, 1, n]`` to ``[K, n]``.
    Protects the first ``sinks`` tokens and the last ``recents``, the last token among them.

    Defaults: ``sinks = 4, recents = 64``: ours, and so is the maximum over the query group; the
    paper stresses selection by head.
    Source: the abstract and a second-hand summary; no official code was found. Evicting while
    decoding, the chosen tokens stay and the recents roll on and forget, as in the paper; by default
    the cache grows while decoding. It is TOVA by head with protections, and
    close to SnapKV with a window of 1: noisy, as one token decides.
    Not verified: the paper's sizes, treatment of groups and positions, and its tables.
    """

    needs = frozenset({Queries(1)})
    capabilities = Capabilities(decodes=True)

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

    def step(self, step: Step) -> Tensor:
        """Nothing is chosen again: what was a recent or is new leaves when its turn comes."""
        rolling = step.protected.clone()
        rolling[step.view.tokens - step.new :] = True
        return step.scores.masked_fill(rolling, _LEAVES)

    def protect(self, tokens: int, budget: int) -> Protection:
        del tokens, budget
        return Protection(sinks=self.sinks, recents=self.recents)
