"""What a policy sees of a layer, what it may ask for, and what it promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from kvharness.contract import EvictMode
from kvharness.policy.observation.probe import Probe
from kvharness.policy.observation.standard import (
    Boundaries,
    ColumnSums,
    Future,
    HiddenSimilarity,
    HiddenStates,
    last_queries,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from kvharness.policy.observation.base import Observation
    from kvharness.policy.observation.part import Probed


T = TypeVar("T")


class Positions(StrEnum):
    """Where kept tokens sit after eviction."""

    ORIGINAL = "original"
    COMPACT = "compact"


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
    ``n`` cached tokens, ``d`` head size.

    Attributes:
        layer: index among the layers that are compressed, from 0.
        keys: ``[K, n, d]``, post-RoPE, in the model's dtype.
        values: ``[K, n, d]``.
        positions: int64 ``[n]``.
        scaling: the factor on query-key products.
        rng: a CPU generator fixed by (seed, item, policy, layer).
        observed: what the observations that the policy declares made of the layer;
            ``view[observation]`` is one of them, and `queries` and the like are those that come
            with the harness.
    """

    layer: int
    keys: Tensor
    values: Tensor
    positions: Tensor
    scaling: float
    rng: torch.Generator
    observed: Mapping[Observation[Any], Any] = field(default_factory=dict)

    def __getitem__(self, observation: Observation[T]) -> T:
        """What an observation made of the layer.

        Raises:
            ValueError: the view does not carry it; says how to declare it.
        """
        if observation not in self.observed:
            when = "" if observation.grows else "; it is never there between evictions"
            raise ValueError(
                f"this view carries no {observation}; declare needs = "
                f"frozenset({{{observation}}}){when}"
            )
        value: T = self.observed[observation]
        return value

    @property
    def tokens(self) -> int:
        return int(self.keys.shape[1])

    @property
    def kv_heads(self) -> int:
        return int(self.keys.shape[0])

    @property
    def queries(self) -> Tensor | None:
        """`Queries`: ``[H, w, d]``, of several counts the most; None unless declared."""
        return last_queries(self.observed)

    @property
    def column_sums(self) -> Tensor | None:
        """`ColumnSums`: float32 ``[H, n]``; None unless declared."""
        return self.observed.get(ColumnSums())

    @property
    def future(self) -> Tensor | None:
        """`Future`: float32 ``[H, n]``; None unless declared."""
        return self.observed.get(Future())

    @property
    def similarity(self) -> float | None:
        """`HiddenSimilarity`: a mean cosine; None unless declared."""
        return self.observed.get(HiddenSimilarity())

    @property
    def boundaries(self) -> Tensor | None:
        """`Boundaries`: bool ``[n]``; None unless declared."""
        return self.observed.get(Boundaries())

    @property
    def hidden_states(self) -> Tensor | None:
        """`HiddenStates`: ``[n, D]``; None unless declared."""
        return self.observed.get(HiddenStates())

    @property
    def probes(self) -> Mapping[Probe, tuple[Probed, ...]] | None:
        """The parts of each declared `Probe`; None without one."""
        found = {each: value for each, value in self.observed.items() if isinstance(each, Probe)}
        return found or None

    def probed(self, probe: Probe) -> tuple[Probed, ...]:
        """The parts of a probe: ``view[probe]``.

        Raises:
            ValueError: the view carries no such probe; says how to declare it.
        """
        return self[probe]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One layer after new tokens were read, before its cache goes back to the budget.

    Shapes as in `View`, with ``m`` entries held: those that stayed last time, oldest first, and
    then the ``new`` ones. KV heads may hold different tokens.

    Attributes:
        view: of the ``m`` entries. ``positions`` counts places in the cache; ``queries`` are
            those of the new tokens; ``column_sums`` went on adding up since the context's first
            token; only what grows is observed; ``rng`` is another one at each step.
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
