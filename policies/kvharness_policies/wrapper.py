"""What policies around another policy share: all that they do not change is the other's."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from kvharness import Policy, Positions
from kvharness_policies.floor import Floor
from kvharness_policies.full import Full

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import LoadedModel, ModelSource, Protection, Trace, View


@dataclass(frozen=True)
class Wrapper(Policy):
    """Delegates every stage to ``scorer``; a subclass overrides the stage that it changes.

    Needs, positions and whether a seed matters are the scorer's. Budgets are head-wise when
    either's are, and nest only when both's do. Whether it evicts on the way is its own to say: what
    it delegates is one compression at once.
    """

    scorer: Policy

    def __post_init__(self) -> None:
        if isinstance(self.scorer, Full | Floor):
            name = type(self.scorer).__name__.lower()
            raise ValueError(  # noqa: TRY004 - it is a policy, and a wrong one
                f"{name} ranks no tokens, so there is nothing to wrap; wrap random"
            )
        # They follow from the scorer, so they are no fields: only parameters may enter a key.
        mine, other = type(self).capabilities, self.scorer.capabilities
        # What is seen of a whole context only is not there between its blocks.
        needs = self.scorer.needs
        given = replace(
            other,
            nested=mine.nested and other.nested,
            head_wise=mine.head_wise or other.head_wise,
            decodes=mine.decodes,
            blocks=mine.blocks
            and self.scorer.positions is Positions.ORIGINAL
            and not other.head_wise
            and not (needs.boundaries or needs.probes or needs.hidden_similarity),
        )
        if given.head_wise and self.scorer.positions is not Positions.ORIGINAL:
            raise ValueError("compact positions need equal budgets in all heads; wrap another one")
        object.__setattr__(self, "capabilities", given)
        object.__setattr__(self, "positions", self.scorer.positions)
        object.__setattr__(self, "needs", type(self).needs.union(self.scorer.needs))

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
        """The same wrapper, prepared or not, around another policy."""
        if scorer is self.scorer:
            return self
        other = copy.copy(self)
        object.__setattr__(other, "scorer", scorer)
        return other

    def checkpoint(self, source: ModelSource, seed: int) -> str:
        return self.scorer.checkpoint(source, seed)

    def prepare(self, model: LoadedModel, seed: int) -> None:
        self.scorer.prepare(model, seed)

    def untrained(self) -> Policy:
        return self.around(self.scorer.untrained())

    def informed(self, trace: Trace) -> Policy:
        return self.around(self.scorer.informed(trace))

    def score(self, view: View) -> Tensor:
        return self.scorer.score(view)

    def score_all(self, trace: Trace) -> Tensor:
        return self.scorer.score_all(trace)

    def protect(self, tokens: int, budget: int) -> Protection:
        return self.scorer.protect(tokens, budget)

    def allocate(self, scores: Tensor, budget: int, protected: Tensor) -> Tensor:
        return self.scorer.allocate(scores, budget, protected)

    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        return self.scorer.select(scores, budgets, protected)
