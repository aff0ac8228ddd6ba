"""The interface of a policy: what a stranger implements, and nothing else.

A policy scores cached tokens; the harness turns scores into keep masks at an exact budget.
Score, allocate and select are separate so that a new idea changes one of them. A policy is never
changed once it is made: what it learns of a model is in the policy that `Policy.ready` returns,
and what it learns of a context is in what its stages return.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from kvharness.contract import Protection
from kvharness.policy.view import Capabilities, Positions, Step, View

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.policy.choice import Choice
    from kvharness.policy.observation.base import Observations
    from kvharness.pretrained.find import ModelSource


_GLOBAL = "full_attention"

#: Of the interface: what this package, `kvharness.testing` and `kvharness.training` export. It
#: grows by one where a policy that was written for it would have to change. What is to change goes
#: on working for one minor release of kvharness, with a DeprecationWarning that names its
#: replacement; what a version adds is no change of it.
INTERFACE_VERSION = 1


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
    part of a record's key and can be set on the command line, ``snapkv(window=16)``. Nothing is
    ever written to a policy, which all contexts and groups of a run share.

    `needs`, `positions` and `capabilities` are class attributes, or properties where they follow
    from parameters.
    """

    @property
    def needs(self) -> Observations:
        """What is to be observed of a context; nothing but keys and values by default."""
        return frozenset()

    @property
    def positions(self) -> Positions:
        """Where kept tokens sit."""
        return Positions.ORIGINAL

    @property
    def capabilities(self) -> Capabilities:
        """What is promised of the choice."""
        return Capabilities()

    def checkpoint(self, source: ModelSource, seed: int) -> str:
        """Digest of the weights that `ready` will load: part of a record's key.

        Raises:
            TrainingProblem: there are none for this model and seed; says what trains them.
        """
        del source, seed
        return ""

    def ready(self, model: LoadedModel, seed: int) -> Policy:
        """The policy that scores on this model and with this seed: by default this one.

        One that learned something returns another, which holds what it loaded in fields; needs,
        positions and capabilities stay the same.
        """
        del model, seed
        return self

    def untrained(self) -> Policy:
        """The same policy with weights for any model, if `ready` finds none that fit.

        The conformance kit checks it on a tiny model, since no rule of the interface depends on
        what weights have learned.
        """
        return self

    def score(self, view: View) -> Tensor:
        """How much each token deserves to stay: float32 ``[K, n]``, finite, higher = keep."""
        del view
        name, learns = type(self).__name__, type(self).ready is not Policy.ready
        made = " in the policy that ready(model, seed) returns" if learns else ""
        raise NotImplementedError(f"{name} must implement score(view){made}")

    def protect(self, tokens: int, budget: int) -> Protection:
        """Sinks and recents this policy protects in addition to the contract's.

        What a budget cannot hold is cut.
        """
        del tokens, budget
        return Protection(sinks=0, recents=0)

    def allocate(self, choice: Choice) -> Tensor:
        """Entries per layer and head: int64 ``[layers, K]``, summing to ``budget * layers * K``.

        By default every head gets the budget.
        """
        import torch  # noqa: PLC0415 - collection must not import torch

        return torch.full(choice.scores.shape[:2], choice.budget, dtype=torch.int64)

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        """Keep mask, bool ``[layers, K, n]``.

        By default the protected tokens, then the highest scores; of equal scores the earlier
        position wins.

        Args:
            choice: what there is to choose from.
            budgets: int64 ``[layers, K]``, entries to keep.
        """
        from kvharness.policy.entries import top_entries  # noqa: PLC0415

        return top_entries(choice.scores, budgets, choice.protected)


@runtime_checkable
class Stepping(Protocol):
    """A policy that evicts on the way. `Capabilities` say when: as it decodes, or in blocks."""

    def step(self, step: Step) -> Tensor:
        """Scores of what the cache holds after new tokens: float32 ``[K, m]``, higher = keep.

        Pure, as `Policy.score` is: what has to be remembered is in the scores, which come back at
        the next step. ``return self.score(step.view)`` scores the entries anew.
        """
        ...


ScoreFunction = Callable[[View], "Tensor"]


@dataclass(frozen=True)
class FunctionPolicy(Policy):
    """A policy made of a score function; see `as_policy`."""

    function: ScoreFunction
    needs: Observations = frozenset()
    positions: Positions = Positions.ORIGINAL
    capabilities: Capabilities = Capabilities()  # noqa: RUF009 - frozen

    def score(self, view: View) -> Tensor:
        return self.function(view)

    def step(self, step: Step) -> Tensor:
        return self.function(step.view)


def as_policy(
    *,
    needs: Observations = frozenset(),
    positions: Positions = Positions.ORIGINAL,
    capabilities: Capabilities | None = None,
) -> Callable[[ScoreFunction], FunctionPolicy]:
    """Decorate a score function to say what it needs; the result is a policy.

    A plain function without needs is a policy as it stands.
    """

    def wrap(function: ScoreFunction) -> FunctionPolicy:
        return FunctionPolicy(
            function=function,
            needs=needs,
            positions=positions,
            capabilities=capabilities or Capabilities(),
        )

    return wrap
