"""Half by attention, the rest by what it moves in the output."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from kvharness import Capabilities, Policy, Wrapper, group_mean
from kvharness_policies.attention_scores import expect_attention

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice, LoadedModel, Trace


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

    own_capabilities = Capabilities(nested=False)

    share: float = 0.5
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect_plain_selection()
        if not 0 <= self.share <= 1:
            raise ValueError(f"share={self.share}: expected a share from 0 to 1")
        if not 0 <= self.epsilon < float("inf"):
            raise ValueError(f"epsilon={self.epsilon}: expected a number from 0")

    def ready(self, model: LoadedModel, seed: int) -> CriticalKV:
        return ProjectingCriticalKV(
            self.scorer.ready(model, seed),
            share=self.share,
            epsilon=self.epsilon,
            projections=tuple(output_projections(model)),
        )

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        scores, protected = choice.scores, choice.protected
        expect_attention(scores, "criticalkv")
        first = (budgets * self.share).long().clamp(min=int(protected.sum())).minimum(budgets)
        pinned = Policy.select(self, choice, first)
        critical = (scores + self.epsilon) * self.norms(choice.trace)
        return Policy.select(self, replace(choice, scores=critical, protected=pinned), budgets)

    def norms(self, trace: Trace) -> Tensor:
        """``n`` of all layers, ``[layers, K, n]``; of the policy that `ready` returns."""
        msg = "the output projections are those of a model: ask ready(model, seed) for the policy"
        raise NotImplementedError(msg)


@dataclass(frozen=True)
class ProjectingCriticalKV(CriticalKV):
    """CriticalKV on one model.

    Args:
        projections: as `output_projections` finds them.
    """

    projections: tuple[Tensor, ...] = field(kw_only=True, repr=False, compare=False)

    def norms(self, trace: Trace) -> Tensor:
        pairs = zip(trace.views, self.projections, strict=True)
        return torch.stack([output_norms(view.values, weights) for view, weights in pairs])


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
