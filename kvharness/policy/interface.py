"""The interface of a policy: what a stranger implements, and nothing else.

A policy scores cached tokens; the harness turns scores into keep masks at an exact budget.
Score, allocate and select are separate so that a new idea changes one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.contract import Protection
from kvharness.policy.view import Capabilities, Needs, Positions, Step, View

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.policy.trace import Trace
    from kvharness.pretrained.find import ModelSource


_GLOBAL = "full_attention"


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
        from kvharness.policy.entries import top_entries  # noqa: PLC0415

        return top_entries(scores, budgets, protected)


ScoreFunction = Callable[[View], "Tensor"]


@dataclass(frozen=True)
class FunctionPolicy(Policy):
    """A policy made of a score function; see `as_policy`."""

    function: ScoreFunction
    needs: Needs = Needs()  # noqa: RUF009 - frozen
    positions: Positions = Positions.ORIGINAL
    capabilities: Capabilities = Capabilities()  # noqa: RUF009

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
