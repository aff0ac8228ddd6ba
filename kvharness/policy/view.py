"""What a policy sees of a layer, what it may ask for, and what it promises."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kvharness.contract import EvictMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from kvharness.policy.probe import Probe, Probed


class Positions(StrEnum):
    """Where kept tokens sit after eviction."""

    ORIGINAL = "original"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the harness must observe for a policy; only that is recorded and passed on.

    Attributes:
        queries: how many of the last context queries, post-RoPE, per layer.
        column_sums: the attention each key received, summed over all context queries.
        future: the largest attention that any token of the true questions and answers pays to
            each key. Only an upper bound may ask for it: no deployable policy can know it.
        hidden_similarity: how little each layer changes the hidden states of the context.
        boundaries: where sentences and records end in the context's text.
        probes: tokens that are read after the context, for their queries; policies that ask for
            equal ones share a forward pass.
        hidden_states: what enters each layer's attention; as large as a layer's keys or larger.
    """

    queries: int = 0
    column_sums: bool = False
    future: bool = False
    hidden_similarity: bool = False
    boundaries: bool = False
    probes: frozenset[Probe] = frozenset()
    hidden_states: bool = False

    def union(self, other: Needs) -> Needs:
        return Needs(
            queries=max(self.queries, other.queries),
            column_sums=self.column_sums or other.column_sums,
            future=self.future or other.future,
            hidden_similarity=self.hidden_similarity or other.hidden_similarity,
            boundaries=self.boundaries or other.boundaries,
            probes=self.probes | other.probes,
            hidden_states=self.hidden_states or other.hidden_states,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a policy promises, so that the right checks run on it.

    Attributes:
        deterministic: the same trace gives the same keep mask whatever the seed.
        nested: a smaller budget keeps a subset of what a larger one keeps.
        head_wise: budgets may differ between heads or layers (the total never does).
        decodes: `Stepping.step` is what it does after each new token (``--kv-evict=decode``).
        blocks: `Stepping.step` is what it does after each block of the context
            (``--kv-evict=blocks``).
    """

    deterministic: bool = True
    nested: bool = True
    head_wise: bool = False
    decodes: bool = False
    blocks: bool = False

    def allow(self, mode: EvictMode) -> bool:
        """Whether a run that evicts in this way may have the policy."""
        return {EvictMode.DECODE: self.decodes, EvictMode.BLOCKS: self.blocks}.get(mode, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One layer of a trace, as a policy sees it. Treat every tensor as read-only.

    Shapes: ``H`` query heads, ``K`` KV heads (query head ``h`` reads KV head ``h // (H // K)``),
    ``n`` cached tokens, ``d`` head size, ``w`` = ``needs.queries`` (fewer when ``n`` is smaller).

    Attributes:
        layer: index among the layers that are compressed, from 0.
        keys: ``[K, n, d]``, post-RoPE, in the model's dtype.
        values: ``[K, n, d]``.
        positions: int64 ``[n]``.
        scaling: the factor on query-key products.
        rng: a CPU generator fixed by (seed, item, policy, layer).
        queries: ``[H, w, d]``, post-RoPE, of the last ``w`` tokens; None unless asked for.
        column_sums: float32 ``[H, n]``; None unless asked for.
        future: float32 ``[H, n]``; None unless asked for.
        similarity: mean cosine of the context's hidden states before and after the layer; None
            unless asked for.
        boundaries: bool ``[n]``, the last token of each sentence, line or record; None unless asked
            for.
        probes: what the layer made of the parts of each probe; None unless asked for.
        hidden_states: ``[n, D]``, what the layer's attention is given, in the model's dtype; None
            unless asked for.
    """

    layer: int
    keys: Tensor
    values: Tensor
    positions: Tensor
    scaling: float
    rng: torch.Generator
    queries: Tensor | None = None
    column_sums: Tensor | None = None
    future: Tensor | None = None
    similarity: float | None = None
    boundaries: Tensor | None = None
    probes: Mapping[Probe, tuple[Probed, ...]] | None = None
    hidden_states: Tensor | None = None

    @property
    def tokens(self) -> int:
        return int(self.keys.shape[1])

    @property
    def kv_heads(self) -> int:
        return int(self.keys.shape[0])

    def probed(self, probe: Probe) -> tuple[Probed, ...]:
        """The parts of a probe.

        Raises:
            ValueError: the view carries no such probe (declare ``Needs(probes=...)``).
        """
        if self.probes is None or probe not in self.probes:
            raise ValueError(
                f"this view carries no {probe}; declare needs = Needs(probes=frozenset({{...}}))"
            )
        return self.probes[probe]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One layer after new tokens were read, before its cache goes back to the budget.

    Shapes as in `View`, with ``m`` entries held: those that stayed last time, oldest first, and
    then the ``new`` ones. KV heads may hold different tokens.

    Attributes:
        view: of the ``m`` entries. ``positions`` counts places in the cache; ``queries`` are
            those of the new tokens, the last ``needs.queries`` of them; ``column_sums`` went on
            adding up since the context's first token; ``rng`` is another one at each step.
        positions: int64 ``[K, m]``, of the entries in the text.
        scores: float32 ``[K, m]``, what the step before returned, or `Policy.score` for the
            context; 0 for new tokens.
        protected: bool ``[m]``, the sinks and recents of the step before; False for new tokens.
        new: how many tokens are new.
    """

    view: View
    positions: Tensor
    scores: Tensor
    protected: Tensor
    new: int
