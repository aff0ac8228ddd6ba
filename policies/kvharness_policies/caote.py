"""What evicting a token would change in the attention output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities, Wrapper, group_mean, window_attention
from kvharness_policies.attention_scores import expect_attention
from kvharness_policies.h2o import H2O
from kvharness_policies.lava import LAVa
from kvharness_policies.rescoring import Rescoring
from kvharness_policies.snapkv import SnapKV
from kvharness_policies.tova import TOVA

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


#: Below this, 1 - a is rounding: such a token has all attention and stays.
_LEAST_REST = 1e-6


@dataclass(frozen=True)
class CAOTE(Rescoring, Wrapper):
    """CAOTE (arXiv 2504.14051): what evicting a token would change in the attention output.

    Score: ``s[k, j] = a[k, j] / (1 - a[k, j]) * ||o[k] - v[k, j]||_2`` with ``o = sum_j a_j v_j``
    and ``a`` the wrapped policy's scores divided by their sum, ``[K, n]``: the exact error of that
    one eviction where ``a`` is one row of one head's attention. Here it is what the scorer made of
    many: a mean over a query group, a sum over rows, pooled. Around `SnapKV`, wrapped or not, the
    window's own attention is part of ``a``. Around `TOVA`, whose heads share scores, heads keep
    tokens of their own, since their values differ.

    Args:
        scorer: whose scores are attention: `H2O`, `TOVA` or `SnapKV`; any that are 0 or more, but
            `LAVa`'s, which are scaled by values. In blocks only those three.
        fast: FastCAOTE, where ``o`` is the mean of the values.

    Source: two independent summaries, and the identity, which was verified; no official code was
    found. Ours: scores are taken as the wrapped policy reduced them over the query group; what is
    protected is as in the wrapped policy; ``1 - a`` is 1e-6 at least. Deviations: by default one
    eviction at the end of a dense prefill; the paper evicts after blocks of 128 tokens, as here in
    blocks, where sums of attention go on from block to block, and while decoding, which is left
    out. Choosing many tokens at once ignores how evictions add up.
    Not verified: the paper's treatment of groups and protected tokens, and its tables.
    """

    own_capabilities = Capabilities(blocks=True)

    fast: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.scored_by, LAVa):
            raise ValueError(  # noqa: TRY004 - it is a policy, and a wrong one
                "lava's scores are attention times norms of values; wrap snapkv or ada(snapkv)"
            )

    @property
    def capabilities(self) -> Capabilities:
        # Others take a block's queries for the whole context's, or keep records of their own.
        able = isinstance(self.scorer, H2O | TOVA | SnapKV)
        given = super().capabilities
        return given if able else replace(given, blocks=False)

    def score(self, view: View) -> Tensor:
        scores = self.scorer.score(view)
        if isinstance(self.scored_by, SnapKV):
            scores = _with_window(view, scores)
        expect_attention(scores, "caote")
        # In float64: 1 - a and o - v cancel where one token has nearly all attention.
        attention, values = scores.double(), view.values.double()
        total = attention.sum(dim=1, keepdim=True)
        attention = torch.where(total > 0, attention / total, 1 / view.tokens)
        weights = torch.full_like(attention, 1 / view.tokens) if self.fast else attention
        output = weights[:, None] @ values
        apart: Tensor = (output - values).norm(dim=-1)
        return (attention / (1 - attention).clamp(min=_LEAST_REST) * apart).float()


def _with_window(view: View, scores: Tensor) -> Tensor:
    """SnapKV's scores, which leave its window at 0, with what the window's tokens received."""
    attention = window_attention(view)
    prefix = view.tokens - attention.shape[1]
    window = group_mean(attention[:, :, prefix:].mean(dim=1), view.kv_heads)
    return torch.cat((scores[:, :prefix], window), dim=1)
