"""Stages that return what the harness cannot use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kvharness import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Trace, View


@dataclass(frozen=True)
class Zeros(Policy):
    """Sound: what the broken ones are made of."""

    def score(self, view: View) -> Tensor:
        return torch.zeros(view.kv_heads, view.tokens)


class OneScorePerQueryHead(Policy):
    def score(self, view: View) -> Tensor:
        return torch.zeros(2 * view.kv_heads, view.tokens)


class HeadsBeforeLayers(Zeros):
    def score_all(self, trace: Trace) -> Tensor:
        return super().score_all(trace).transpose(0, 1)


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
