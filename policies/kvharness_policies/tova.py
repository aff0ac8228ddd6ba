"""Attention of the last token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import Capabilities, Queries, window_attention
from kvharness_policies.rescoring import Rescoring

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class TOVA(Rescoring):
    """TOVA (arXiv 2401.06104): attention of the last token, the same for all heads.

    Score: ``s[k, j] = mean over all h of A[h, n - 1, j]``; ``[H, 1, n]`` to ``[K, n]`` with
    equal rows, so that every KV head of a layer keeps the same tokens.
    No parameters: the official ``cache_size`` is the budget. No protection of its own: the
    official code may drop even the last token (kvpress pins it).
    Deviations: by default it evicts once, at the end of prefill; evicting while decoding it goes on
    after every token with that token's attention, as the official code does, and the two are not
    the same policy. The last token is often a template's, so scores depend on the template. Not
    verified: the paper's tables.
    """

    needs = frozenset({Queries(1)})
    capabilities = Capabilities(decodes=True)

    def score(self, view: View) -> Tensor:
        return window_attention(view)[:, -1].mean(dim=0).repeat(view.kv_heads, 1)
