"""The interface of a policy: what a stranger implements, and nothing else.

A policy scores cached tokens; the harness turns scores into keep masks at an exact budget.
Score, allocate and select are separate so that a new idea changes one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kvharness.contract import EvictMode, Protection

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.model import ModelSource
    from kvharness.probe import Probe, Probed
    from kvharness.trace import Trace

_GLOBAL = "full_attention"


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
        decodes: `step` is what it does after each new token (``--kv-evict=decode``).
        blocks: `step` is what it does after each block of the context (``--kv-evict=blocks``).
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """The model that a policy gets ready for.

    Attributes:
        source: its name and digest; weights that were trained for another digest do not fit.
        module: leave it as it is.
    """

    source: ModelSource
    module: PreTrainedModel

    @property
    def compressed(self) -> tuple[int, ...]:
        """Decoder layers that a trace has, in its order: those that do not slide over a window."""
        config = self.module.config.get_text_config()
        kinds = getattr(config, "layer_types", None) or [_GLOBAL] * config.num_hidden_layers
        return tuple(index for index, kind in enumerate(kinds) if kind == _GLOBAL)


class Policy:
    """Decides which cached tokens stay. Override `score`; everything else has a default.

    Constructor arguments are the policy's parameters (make it a frozen dataclass): they are
    part of a record's key and can be set on the command line, ``snapkv(window=16)``.
    """

    needs: Needs = Needs()
    positions: Positions = Positions.ORIGINAL
    capabilities: Capabilities = Capabilities()

    def checkpoint(self, source: ModelSource, seed: int) -> str:
        """Digest of the weights that `prepare` will load: part of a record's key.

        Raises:
            TrainingProblem: there are none for this model and seed; says what trains them.
        """
        del source, seed
        return ""

    def prepare(self, model: LoadedModel, seed: int) -> None:
        """Get ready for this model and seed, for instance by loading a checkpoint."""

    def untrained(self) -> Policy:
        """The same policy with weights for any model, where `prepare` has none that fit.

        The conformance kit checks it on a tiny model, since no rule of the interface depends on
        what weights have learned.
        """
        return self

    def informed(self, trace: Trace) -> Policy:
        """A copy that knows this context, for `allocate` and `select`, which get scores alone.

        Few need it: a choice that takes more than one score for each token, or layer weights
        that do not follow from scores. What is learned of a context goes on the copy and never
        on the policy, which sees other contexts too.
        """
        del trace
        return self

    def score(self, view: View) -> Tensor:
        """How much each token deserves to stay: float32 ``[K, n]``, finite, higher = keep."""
        msg = f"{type(self).__name__} must implement score(view)"
        raise NotImplementedError(msg)

    def score_all(self, trace: Trace) -> Tensor:
        """Scores of all layers, float32 ``[layers, K, n]``; by default layer by layer."""
        import torch  # noqa: PLC0415 - collection must not import torch

        return torch.stack([self.score(view) for view in trace.views])

    def step(self, step: Step) -> Tensor:
        """Scores of what the cache holds after new tokens: float32 ``[K, m]``, higher = keep.

        Only policies that say so in their capabilities are asked. Pure, as `score` is: what has
        to be remembered is in the scores, which come back at the next step. By default the
        entries are scored anew.
        """
        return self.score(step.view)

    def allocate(self, scores: Tensor, budget: int, protected: Tensor) -> Tensor:
        """Entries per layer and head: int64 ``[layers, K]``, summing to ``budget * layers * K``.

        Args:
            scores: float32 ``[layers, K, n]``.
            budget: mean entries per head.
            protected: bool ``[n]``, tokens that every head must be able to keep.
        """
        del protected
        import torch  # noqa: PLC0415

        return torch.full(scores.shape[:2], budget, dtype=torch.int64)

    def protect(self, tokens: int, budget: int) -> Protection:
        """Sinks and recents this policy protects beside the contract's.

        What a budget cannot hold is cut.
        """
        del tokens, budget
        return Protection(sinks=0, recents=0)

    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        """Keep mask, bool ``[layers, K, n]``.

        By default the protected tokens, then the highest scores; of equal scores the earlier
        position wins.

        Args:
            scores: float32 ``[layers, K, n]``.
            budgets: int64 ``[layers, K]``, entries to keep.
            protected: bool ``[n]``, tokens that must be kept.
        """
        from kvharness.select import top_entries  # noqa: PLC0415

        return top_entries(scores, budgets, protected)


ScoreFunction = Callable[[View], "Tensor"]


@dataclass(frozen=True)
class FunctionPolicy(Policy):
    """A policy made of a score function; see `as_policy`."""

    function: ScoreFunction
    needs: Needs = Needs()
    positions: Positions = Positions.ORIGINAL
    capabilities: Capabilities = Capabilities()

    def score(self, view: View) -> Tensor:
        return self.function(view)


def as_policy(
    *,
    needs: Needs | None = None,
    positions: Positions = Positions.ORIGINAL,
    capabilities: Capabilities | None = None,
) -> Callable[[ScoreFunction], FunctionPolicy]:
    """Decorate a score function to say what it needs; the result is a policy.

    A plain function without needs is a policy as it stands.
    """

    def wrap(function: ScoreFunction) -> FunctionPolicy:
        return FunctionPolicy(
            function=function,
            needs=needs or Needs(),
            positions=positions,
            capabilities=capabilities or Capabilities(),
        )

    return wrap
