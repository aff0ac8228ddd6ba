"""What policies around another policy share: all that they do not change is the other's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from kvharness.policy.interface import Policy
from kvharness.policy.view import Capabilities, Positions

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.contract import Protection
    from kvharness.policy.choice import Choice
    from kvharness.policy.interface import LoadedModel
    from kvharness.policy.observation.base import Observations
    from kvharness.policy.view import View
    from kvharness.pretrained.find import ModelSource


@dataclass(frozen=True)
class Wrapper(Policy):
    """Delegates every stage to ``scorer``; a subclass overrides the stages that it changes.

    Needs, positions and whether a seed matters are the scorer's; what the wrapper needs and
    promises in addition is in `own_needs` and `own_capabilities`. Budgets are head-wise when
    either's are, and nest only when both's do. Whether it evicts on the way is its own to say
    (and then it has a `step`): what it delegates is one compression at once.

    A package offers it as an entry point of ``kvharness.wrappers``, and ``--policy`` takes
    ``mine(snapkv)``.

    Args:
        scorer: the wrapped policy; it ranks tokens, so it is not ``full`` or ``floor``.
    """

    scorer: Policy

    def __post_init__(self) -> None:
        if self.capabilities.head_wise and self.positions is not Positions.ORIGINAL:
            raise ValueError("compact positions need equal budgets in all heads; wrap another one")

    @property
    def own_needs(self) -> Observations:
        """What the wrapper needs beyond its scorer; a class attribute in most."""
        return frozenset()

    @property
    def own_capabilities(self) -> Capabilities:
        """What the wrapper promises whatever it wraps; a class attribute in most."""
        return Capabilities()

    @property
    def needs(self) -> Observations:
        return self.own_needs | self.scorer.needs

    @property
    def positions(self) -> Positions:
        return self.scorer.positions

    @property
    def capabilities(self) -> Capabilities:
        mine, other = self.own_capabilities, self.scorer.capabilities
        return Capabilities(
            deterministic=mine.deterministic and other.deterministic,
            nested=mine.nested and other.nested,
            head_wise=mine.head_wise or other.head_wise,
            decodes=mine.decodes,
            blocks=mine.blocks
            and self.scorer.positions is Positions.ORIGINAL
            and not other.head_wise
            # What is seen of a whole context only is not there between its blocks.
            and all(each.grows for each in self.scorer.needs),
        )

    @property
    def scored_by(self) -> Policy:
        """The policy whose scores the wrapped one hands on."""
        inner = self.scorer
        while isinstance(inner, Wrapper) and type(inner).score is Wrapper.score:
            inner = inner.scorer
        return inner

    def expect_plain_selection(self) -> None:
        """Refuse to wrap what chooses by more than scores, for wrappers that choose themselves.

        Raises:
            ValueError: the wrapped policy would not be asked for its choice.
        """
        inner = self.scorer
        while isinstance(inner, Wrapper) and type(inner).select is Wrapper.select:
            inner = inner.scorer
        if type(inner).select not in {Policy.select, Wrapper.select}:
            mine, other = type(self).__name__.lower(), type(inner).__name__.lower()
            raise ValueError(
                f"{other} and {mine} both choose by more than scores, and one would be passed "
                f"over; take one of them"
            )

    def around(self, scorer: Policy) -> Self:
        """The same wrapper around another policy."""
        return self if scorer is self.scorer else replace(self, scorer=scorer)

    def checkpoint(self, source: ModelSource, seed: int) -> str:
        return self.scorer.checkpoint(source, seed)

    def ready(self, model: LoadedModel, seed: int) -> Policy:
        return self.around(self.scorer.ready(model, seed))

    def untrained(self) -> Policy:
        return self.around(self.scorer.untrained())

    def score(self, view: View) -> Tensor:
        return self.scorer.score(view)

    def protect(self, tokens: int, budget: int) -> Protection:
        return self.scorer.protect(tokens, budget)

    def allocate(self, choice: Choice) -> Tensor:
        return self.scorer.allocate(choice)

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        return self.scorer.select(choice, budgets)
