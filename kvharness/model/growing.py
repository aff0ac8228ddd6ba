"""What several cells' policies see of a cache between evictions: observations that grow with it."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from kvharness.model.watch import Unseen, attempted
from kvharness.policy.observation.growth import Growth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from kvharness.errors import ModelProblem
    from kvharness.model.prefilled import Prefilled
    from kvharness.model.rolling_cache_layer import HeldLayer
    from kvharness.model.watch import Guard
    from kvharness.policy.observation.base import Observation, Observations
    from kvharness.policy.trace import LayerTrace

    #: Of one layer: ``[R, G, ...]``, rows as in `HeldLayer`.
    Grown = Mapping[Observation[Any], Tensor]


class Growing:
    """The observations of several cells that grow; one that fails is not made any longer.

    Args:
        needs: what policies ask for, together.
        whole: the full context, for what was observed of it.
        guard: entered around the code of an observation.

    Attributes:
        problems: why some could not be made.
    """

    def __init__(
        self, needs: Observations, whole: Prefilled | None = None, guard: Guard = nullcontext
    ) -> None:
        self.problems: dict[Observation[Any], ModelProblem] = {}
        self._needs = {each for each in needs if each.grows}
        self._whole = whole
        self._guard = guard

    def fork(self) -> Growing:
        """The same, to go on from twice."""
        other = Growing(frozenset(self._needs), self._whole, self._guard)
        other.problems = dict(self.problems)
        return other

    def raise_problem(self, needs: Observations) -> None:
        """End a policy whose observations could not be made.

        Raises:
            ModelProblem: one of them.
        """
        for each in needs & self.problems.keys():
            raise self.problems[each]

    def of_context(self, layer: LayerTrace) -> Grown:
        """What was observed of the whole context, for the rows of one cell."""
        rows = len(layer.keys)
        there = [each for each in self._needs if each in layer.observed]
        return self._made(
            there, rows, layer.keys, lambda each: layer.observed[each].unflatten(0, (rows, -1))
        )

    def grown(self, name: int, layer: HeldLayer, query: Tensor, mask: Tensor | None) -> Grown:
        """With new tokens, whose queries are ``[R, G, t, d]``."""
        growth = Growth(
            query=query,
            keys=layer.seen,
            scaling=layer.scaling,
            visible=mask,
            positions=layer.positions,
        )

        def grow(each: Observation[Any]) -> Tensor:
            # Attention is computed once for all, and what each made of the context is its own.
            nonlocal growth
            growth = growth.of(self._of_whole(name, each))
            return each.grow(layer.observed.get(each), growth)

        return self._made(self._needs, len(query), query, grow)

    def _of_whole(self, name: int, observation: Observation[Any]) -> Any:
        return None if self._whole is None else self._whole.layers[name].observed.get(observation)

    def evicted(self, observed: Grown, index: Tensor) -> Grown:
        """What is left for the entries ``index`` int64 ``[R, k]``."""
        return self._made(
            observed, len(index), index, lambda each: each.evict(observed[each], index)
        )

    def _made(
        self,
        observations: Iterable[Observation[Any]],
        rows: int,
        like: Tensor,
        make: Callable[[Observation[Any]], Tensor],
    ) -> Grown:
        found = {}
        for each in observations:
            if each in self.problems:
                continue
            action = partial(_rows, make, each, rows)
            value = attempted(each, action, self._guard, like.device)
            if isinstance(value, Unseen):
                self.problems[each] = value.problem
            else:
                found[each] = value
        return found


def _rows(make: Callable[[Observation[Any]], Any], each: Observation[Any], rows: int) -> Tensor:
    value = make(each)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"a {type(value).__name__} came, expected a tensor [R, G, ...]")
    if value.dim() < 2 or len(value) != rows:
        raise ValueError(f"a tensor {list(value.shape)} came, expected [{rows}, G, ...]")
    return value
