"""Choices that depend on what they must not depend on."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities, ColumnSums, Future, Policy, group_mean
from kvharness.policy.trace import LayerTrace
from tests.testing.broken.interface import Zeros

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice, LoadedModel, View


class DrawsGlobally(Policy):
    capabilities = Capabilities(deterministic=False)

    def score(self, view: View) -> Tensor:
        own = torch.rand(view.kv_heads, view.tokens, generator=view.rng)
        return own + torch.rand(view.kv_heads, view.tokens)


class SeedsTorch(Policy):
    """The same numbers every time, and from then on the same for all who draw after it."""

    def score(self, view: View) -> Tensor:
        torch.manual_seed(view.layer)
        return torch.rand(view.kv_heads, view.tokens)


class ComputesInFloat64(Zeros):
    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return super().select(choice, budgets)


class TakesAllCores(Zeros):
    def score(self, view: View) -> Tensor:
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().score(view)


class AllowsGradients(Zeros):
    def score(self, view: View) -> Tensor:
        torch.set_grad_enabled(True)
        return super().score(view)


class WantsDeterminism(Zeros):
    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del model, seed
        torch.use_deterministic_algorithms(True)
        return self


class FixesItsSeed(Policy):
    """One generator of its own: every seed of a run is the same sample."""

    capabilities = Capabilities(deterministic=False)

    def score(self, view: View) -> Tensor:
        mine = torch.Generator().manual_seed(42 + view.layer)
        return torch.rand(view.kv_heads, view.tokens, generator=mine)


class BreaksTiesAtRandom(Policy):
    """Says nothing of it in its capabilities."""

    def score(self, view: View) -> Tensor:
        noise = torch.rand(view.kv_heads, view.tokens, generator=view.rng)
        norms: Tensor = view.keys.float().norm(dim=-1)
        return norms.round() + noise / 2


class NormalizesInPlace(Policy):
    def score(self, view: View) -> Tensor:
        scale = view.keys.abs().amax(dim=-1, keepdim=True).clamp_min(1)
        return view.keys.div_(scale).float().sum(dim=-1)


@dataclass(frozen=True)
class RemembersKeys(Policy):
    """Keeps the mean key of the first prompt for all others."""

    seen: dict[int, Tensor] = field(default_factory=dict, compare=False)

    def score(self, view: View) -> Tensor:
        mean = self.seen.get(view.layer, torch.zeros(()))
        scores = view.keys.float().sum(dim=-1) * (1 if mean > 0 else -1)
        self.seen[view.layer] = mean + 1
        return scores


@dataclass(frozen=True)
class RemembersScores(Policy):
    """A cache of scores whose key is their shape: the first prompt's serve every other."""

    seen: dict[tuple[int, ...], Tensor] = field(default_factory=dict, compare=False)

    def score(self, view: View) -> Tensor:
        scores = view.keys.float().sum(dim=-1)
        return self.seen.setdefault((view.layer, *scores.shape), scores)


class PeeksAtTheFuture(Zeros):
    """Looks in the process's memory for what others asked for of the same keys."""

    def score(self, view: View) -> Tensor:
        layers = [each for each in gc.get_referrers(view.keys) if isinstance(each, LayerTrace)]
        found = [layer.observed[Future()] for layer in layers if Future() in layer.observed]
        return group_mean(found[0], view.kv_heads) if found else super().score(view)


class ReadsOneHeadOfAGroup(Policy):
    needs = frozenset({ColumnSums()})

    def score(self, view: View) -> Tensor:
        assert view.column_sums is not None
        grouped: Tensor = view.column_sums.unflatten(0, (view.kv_heads, -1))
        return grouped[:, 0]


class MagnifiesRounding(Policy):
    """Ranks by digits that depend on the order in which numbers were added."""

    needs = frozenset({ColumnSums()})

    def score(self, view: View) -> Tensor:
        assert view.column_sums is not None
        grouped: Tensor = view.column_sums.unflatten(0, (view.kv_heads, -1))
        return (grouped.amax(dim=1) * 2**20).frac()
