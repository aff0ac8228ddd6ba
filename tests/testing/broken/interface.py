"""Stages that return what the harness cannot use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kvharness import ColumnSums, Policy, group_mean

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import LoadedModel, View


@dataclass(frozen=True)
class Zeros(Policy):
    """Sound: what the broken ones are made of."""

    def score(self, view: View) -> Tensor:
        return torch.zeros(view.kv_heads, view.tokens)


class OneScorePerQueryHead(Policy):
    def score(self, view: View) -> Tensor:
        return torch.zeros(2 * view.kv_heads, view.tokens)


class ReadyAsAnother(Zeros):
    """Declares less as it is built than the policy that scores needs."""

    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del model, seed
        return SumsUp()


class SumsUp(Policy):
    needs = frozenset({ColumnSums()})

    def score(self, view: View) -> Tensor:
        assert view.column_sums is not None
        return group_mean(view.column_sums, view.kv_heads)


class NeedsEightTokens(Policy):
    def score(self, view: View) -> Tensor:
        norms: Tensor = view.keys.float().norm(dim=-1)
        nearest = norms.topk(8, dim=-1).indices
        return torch.zeros(view.kv_heads, view.tokens).scatter(-1, nearest, 1.0)


class ScoresInTheModelsDtype(Policy):
    def score(self, view: View) -> Tensor:
        return torch.zeros(view.kv_heads, view.tokens, dtype=view.keys.dtype)


class ScoresElsewhere(Policy):
    def score(self, view: View) -> Tensor:
        return torch.zeros(view.kv_heads, view.tokens, device="meta")


class SquaresInTheModelsDtype(Policy):
    def score(self, view: View) -> Tensor:
        return -view.keys.square().sum(dim=-1).float()


class DividesByTheNorm(Policy):
    def score(self, view: View) -> Tensor:
        values = view.values.float()
        norms: Tensor = values.norm(dim=-1)
        return values[..., 0] / norms


class ProtectsWithATuple(Zeros):
    def protect(self, tokens: int, budget: int) -> Any:
        return (4, min(tokens, budget))


class ProtectsEverything(Zeros):
    def protect(self, tokens: int, budget: int) -> Any:
        from kvharness import Protection

        del budget
        return Protection(sinks=tokens, recents=0)


class ProtectsHalfATokens(Zeros):
    def protect(self, tokens: int, budget: int) -> Any:
        from kvharness import Protection

        return Protection(sinks=0, recents=0.6 * min(tokens, budget))  # type: ignore[arg-type]
