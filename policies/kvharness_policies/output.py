"""Policies around another policy's attention that ask what an eviction does to the output."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from kvharness import Capabilities, Policy, group_mean, window_attention
from kvharness_policies.allocation import LAVa
from kvharness_policies.attention import H2O
from kvharness_policies.window import TOVA, SnapKV
from kvharness_policies.wrapper import Wrapper

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import LoadedModel, Trace, View

#: Below this, 1 - a is rounding: such a token has all attention and stays.
_LEAST_REST = 1e-6


@dataclass(frozen=True)
class CAOTE(Wrapper):
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

    capabilities = Capabilities(blocks=True)

    fast: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.scored_by, LAVa):
            raise ValueError(  # noqa: TRY004 - it is a policy, and a wrong one
                "lava's scores are attention times norms of values; wrap snapkv or ada(snapkv)"
            )
        if not isinstance(self.scorer, H2O | TOVA | SnapKV):
            # Others take a block's queries for the whole context's, or keep records of their own.
            given = replace(self.capabilities, blocks=False)
            object.__setattr__(self, "capabilities", given)

    def score(self, view: View) -> Tensor:
        return self._error(view, self.scorer.score(view))

    def score_all(self, trace: Trace) -> Tensor:
        scores = self.scorer.score_all(trace)
        pairs = zip(trace.views, scores, strict=True)
        return torch.stack([self._error(view, score) for view, score in pairs])

    def _error(self, view: View, scores: Tensor) -> Tensor:
        if isinstance(self.scored_by, SnapKV):
            scores = _with_window(view, scores)
        _expect_attention(scores, "caote")
        # In float64: 1 - a and o - v cancel where one token has nearly all attention.
        attention, values = scores.double(), view.values.double()
        total = attention.sum(dim=1, keepdim=True)
        attention = torch.where(total > 0, attention / total, 1 / view.tokens)
        weights = torch.full_like(attention, 1 / view.tokens) if self.fast else attention
        output = weights[:, None] @ values
        apart: Tensor = (output - values).norm(dim=-1)
        return (attention / (1 - attention).clamp(min=_LEAST_REST) * apart).float()


@dataclass(frozen=True)
class CriticalKV(Wrapper):
    """CriticalKV (arXiv 2502.03805): half by attention, the rest by attention times output norm.

    Scores and budgets are the wrapped policy's. Of a head's ``b`` entries the first ``share b``
    (the protected tokens at least) are those of the highest scores ``s``; the rest are the highest
    ``(s + epsilon) n`` among the others, with ``n[k, j] = mean over h in group(k) of
    ||W_o^(h) v[k, j]||_1``, ``W_o^(h)`` ``[D, d]`` the columns of the output projection that
    belong to query head ``h``; ``[K, n, d]`` to ``[K, n]``.

    Args:
        scorer: whose scores are attention, 0 or more.
        share: of the first stage, 0.5; ``ada(criticalkv(snapkv))`` is the Ada version.
        epsilon: 1e-4, for scores that are means of attention; on contexts of far more than 10,000
            tokens it rules the second stage.

    Defaults: those of the official code, which is kvpress's. Deviations: protected tokens are a
    mask, where officially they are large scores that the second stage multiplies. Inside it,
    expected attention wants ``value_norm=False``.
    Not verified: the paper's text and tables.
    It makes the last choice itself, so it wraps no policy that does so too, such as `Coupled`.
    A larger budget has a larger first stage, so budgets do not nest.
    """

    capabilities = Capabilities(nested=False)

    share: float = 0.5
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect_plain_selection()
        if not 0 <= self.share <= 1:
            raise ValueError(f"share={self.share}: expected a share from 0 to 1")
        if not 0 <= self.epsilon < float("inf"):
            raise ValueError(f"epsilon={self.epsilon}: expected a number from 0")

    def prepare(self, model: LoadedModel, seed: int) -> None:
        super().prepare(model, seed)
        # Follow from the model, so they are no field.
        object.__setattr__(self, "_projections", output_projections(model))

    def informed(self, trace: Trace) -> Policy:
        projections: list[Tensor] = self._projections  # type: ignore[attr-defined]
        norms = [output_norms(view.values, projections[view.layer]) for view in trace.views]
        other = copy.copy(self)
        object.__setattr__(other, "scorer", self.scorer.informed(trace))
        object.__setattr__(other, "_norms", torch.stack(norms))
        return other

    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        norms: Tensor = self._norms  # type: ignore[attr-defined]
        _expect_attention(scores, "criticalkv")
        first = (budgets * self.share).long().clamp(min=int(protected.sum())).minimum(budgets)
        pinned = Policy.select(self, scores, first, protected)
        return Policy.select(self, (scores + self.epsilon) * norms, budgets, pinned)


def _with_window(view: View, scores: Tensor) -> Tensor:
    """SnapKV's scores, which leave its window at 0, with what the window's tokens received."""
    attention = window_attention(view)
    prefix = view.tokens - attention.shape[1]
    window = group_mean(attention[:, :, prefix:].mean(dim=1), view.kv_heads)
    return torch.cat((scores[:, :prefix], window), dim=1)


def output_projections(model: LoadedModel) -> list[Tensor]:
    """Weights ``[D, H d]`` of the output projections of the layers that are compressed.

    Raises:
        ValueError: the model keeps them elsewhere.
    """
    layers: Any = model.module.get_decoder().layers
    found = []
    for index in model.compressed:
        projection = getattr(getattr(layers[index], "self_attn", None), "o_proj", None)
        if projection is None:
            raise ValueError(
                f"{type(model.module).__name__} has no self_attn.o_proj in its layers; choose a "
                f"model of the Llama kind (Llama, Qwen, Mistral, Gemma, ...)"
            )
        found.append(projection.weight.detach())
    return found


def output_norms(values: Tensor, projection: Tensor) -> Tensor:
    """L1 norms of projected values: ``[K, n, d]`` and ``[D, H d]`` to float32 ``[K, n]``."""
    kv_heads, _, size = values.shape
    by_head = projection.unflatten(1, (-1, size)).unbind(dim=1)
    group = len(by_head) // kv_heads
    # Head by head: all at once would be H n D numbers.
    norms = [
        (values[head // group].float() @ weight.float().T).norm(p=1, dim=-1)
        for head, weight in enumerate(by_head)
    ]
    return group_mean(torch.stack(norms), kv_heads)


def _expect_attention(scores: Tensor, name: str) -> None:
    if bool((scores < 0).any()):
        raise ValueError(
            f"{name} takes scores for attention, and these go down to {float(scores.min()):.3g}; "
            f"wrap a policy whose scores are 0 or more, such as h2o, tova or snapkv"
        )
