"""A policy at work on a cache that is read on: after each step it goes back to the budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from kvharness.contract import Protection
from kvharness.discovery.declared import unstepping
from kvharness.engine.select import select_entries, stacked, whole_protection
from kvharness.errors import KvharnessError, PolicyProblem
from kvharness.isolation.attribution import blamed
from kvharness.isolation.last_words import BlackBox
from kvharness.policy.entries import protected_mask
from kvharness.policy.interface import Stepping
from kvharness.policy.view import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from kvharness.model.rolling_cache import HeldCache
    from kvharness.policy.interface import Policy
    from kvharness.policy.trace import Trace
    from kvharness.policy.view import View


#: Why a policy with budgets of heads cannot run here.
EQUAL_BUDGETS = "evicting on the way needs equal budgets in all heads and layers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evictor:
    """What one cell evicts with.

    Attributes:
        name: how messages name the policy.
        policy: asked for scores at every step.
        budget: entries a head between steps; the cache is cut back where it holds more.
        protection: the contract's, fitted to the budget.
        words: seed, item and policy, which fix random numbers.
        box: says which policy runs.
    """

    name: str
    policy: Policy
    budget: int
    protection: Protection
    words: tuple[str, ...]
    box: BlackBox = field(default_factory=BlackBox)

    def step(self, cache: HeldCache, cell: int, before: Standing) -> tuple[Tensor, Standing]:
        """Which entries stay, bool ``[layers, K, m]``, and what to remember of them.

        Raises:
            PolicyProblem: the policy broke the interface, or changed the tensors of its view.
            ModelProblem: what it asks for could not be observed.
        """
        cache.growing.raise_problem(self.policy.needs)
        stepping = self.policy
        if not isinstance(stepping, Stepping):
            raise PolicyProblem(self.name, unstepping(self.policy))
        words = (*self.words, f"step {cache.tokens}")
        trace = cache.trace(cell).for_policy(self.policy.needs, words)
        versions = _versions(trace)
        doing = f"policy {self.name!r}, evicting after token {cache.tokens}"
        with blamed(self.name), self.box.during(doing), torch.no_grad():
            steps = self._steps(trace, cache.positions(cell), before)
            scores = stacked(((s.view, stepping.step(s)) for s in steps), "step", self.name)
            mask = self._mask(trace, scores)
            whole = whole_protection(
                self.policy, trace.tokens, self.budget, self.protection, self.name
            )
        if _versions(trace) != versions:
            raise PolicyProblem(self.name, "step changed the tensors of its view; clone them")
        kept = mask.to(scores.device)
        left = scores[kept].view(*scores.shape[:2], -1)
        return mask, Standing(scores=left, protection=whole)

    def standing(self, mask: Tensor, scores: Tensor) -> Standing:
        """What to remember of a context ``[layers, K, n]`` that was compressed at once."""
        layers, heads, tokens = mask.shape
        return Standing(
            scores=scores[mask.to(scores.device)].view(layers, heads, -1),
            protection=whole_protection(
                self.policy, tokens, self.budget, self.protection, self.name
            ),
        )

    def _steps(self, trace: Trace, positions: Sequence[Tensor], before: Standing) -> Iterator[Step]:
        old = 0 if before.scores is None else int(before.scores.shape[-1])
        new = trace.tokens - old
        protected = torch.zeros(trace.tokens, dtype=torch.bool)
        protected[:old] = protected_mask(old, before.protection)
        for view, places in zip(trace.views, positions, strict=True):
            yield Step(
                view=view,
                positions=places,
                scores=_scores_before(view, before.scores, new),
                protected=protected.to(view.keys.device),
                new=new,
            )

    def _mask(self, trace: Trace, scores: Tensor) -> Tensor:
        if trace.tokens <= self.budget:
            return torch.ones(scores.shape, dtype=torch.bool)
        mask = select_entries(
            self.policy, trace, scores, self.budget, self.protection, name=self.name
        )
        counts = mask.sum(dim=-1)
        if int(counts.min()) != self.budget:
            raise PolicyProblem(self.name, EQUAL_BUDGETS)
        return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a cell remembers between steps.

    Attributes:
        scores: float32 ``[layers, K, held]``; None before the first step.
        protection: of the last selection.
        problem: why the cell has failed; it is then cut back to its last tokens.
    """

    scores: Tensor | None = None
    protection: Protection = field(default_factory=lambda: Protection(sinks=0, recents=0))
    problem: KvharnessError | None = None


def _scores_before(view: View, scores: Tensor | None, new: int) -> Tensor:
    if scores is None:
        shape = (view.kv_heads, view.tokens)
        return torch.zeros(shape, dtype=torch.float32, device=view.keys.device)
    return torch.nn.functional.pad(scores[view.layer], (0, new))


def _versions(trace: Trace) -> list[int]:
    """Torch's counters of in-place changes."""
    shared = (tensor for layer in trace.layers for _, tensor in layer.tensors())
    return [tensor._version for tensor in shared]  # noqa: SLF001 - it has no public name


def cut_back(
    cache: HeldCache, evictors: Sequence[Evictor], standings: Sequence[Standing]
) -> list[Standing]:
    """Let each cell's policy evict down to its budget; the budgets are equal.

    A cell whose policy fails keeps its last tokens from then on, so that the others go on.
    """
    masks, after = [], []
    for cell, (evictor, before) in enumerate(zip(evictors, standings, strict=True)):
        try:
            if before.problem is not None:
                raise before.problem
            mask, standing = evictor.step(cache, cell, before)
        except KvharnessError as problem:
            mask, standing = _last(cache, evictor.budget), Standing(problem=problem)
        masks.append(mask)
        after.append(standing)
    if cache.entries > evictors[0].budget:
        cache.keep(masks)
    return after


def _last(cache: HeldCache, budget: int) -> Tensor:
    layers = cache.layers
    heads = len(layers[0].keys) // cache.cells
    mask = torch.zeros(len(layers), heads, cache.entries, dtype=torch.bool)
    mask[..., max(0, cache.entries - budget) :] = True
    return mask
