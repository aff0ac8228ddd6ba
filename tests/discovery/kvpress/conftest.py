"""Presses of our own, with kvpress's interface: these tests need no kvpress."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import torch

from kvharness.discovery.kvpress.policy import PressPolicy
from kvharness.model.context_reading import prefill
from kvharness.policy.interface import LoadedModel
from kvharness.policy.trace import Trace

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.model.loaded import Runtime


@dataclass
class KeepLast:
    """Keeps the last ``int(n (1 - ratio))`` tokens, newest first, and scribbles on its inputs."""

    compression_ratio: float = 0.0
    step: int = 1
    model: Any = None
    rotary: list[bool] = field(default_factory=list)

    def post_init_from_model(self, model: Any) -> None:
        self.model = model

    def score(self, module: Any, hidden: Tensor, keys: Tensor, *rest: Any) -> Tensor:  # noqa: ARG002
        assert self.model is not None
        assert module.rotary_emb is not None
        assert hidden.shape[:2] == (1, keys.shape[2])
        return torch.arange(keys.shape[2]).expand(1, keys.shape[1], -1).to(keys)

    def compress(self, *given: Any) -> tuple[Tensor, Tensor]:
        _, hidden, keys, values, _, named = given
        cos, sin = named["position_embeddings"]
        assert cos.shape == sin.shape == (1, keys.shape[2], keys.shape[3])
        scores = self.score(*given[:3])
        kept = self.step * (int(keys.shape[2] * (1 - self.compression_ratio)) // self.step)
        index = scores.topk(kept).indices[..., None].expand(-1, -1, -1, keys.shape[3])
        taken = keys.gather(2, index), values.gather(2, index)
        for each in (hidden, keys, values):
            each.zero_()
        return taken


@dataclass
class MaskFirst(KeepLast):
    """Masks as many entries, all in the first heads and tokens of a layer."""

    def compress(self, *given: Any) -> tuple[Tensor, Tensor]:
        module, _, keys, values, _, _ = given
        heads, tokens = keys.shape[1:3]
        evicted = heads * (tokens - int(tokens * (1 - self.compression_ratio)))
        index = torch.arange(evicted)
        module.masked_key_indices = (torch.zeros_like(index), index // tokens, index % tokens)
        return keys, values


@dataclass
class DrawScores(KeepLast):
    """Ranks by the global generator."""

    def score(self, module: Any, hidden: Tensor, keys: Tensor, *rest: Any) -> Tensor:  # noqa: ARG002
        return torch.rand(keys.shape[:-1])


class MakeSeen(Protocol):
    """A press policy that is ready, and a trace of the tiny model for it."""

    def __call__(
        self, press: Any, *, ranks: bool = ..., words: tuple[str, ...] = ..., **options: Any
    ) -> tuple[PressPolicy, Trace]: ...


@pytest.fixture
def make_seen(runtime: Runtime) -> MakeSeen:
    def make(
        press: Any, *, ranks: bool = True, words: tuple[str, ...] = ("1", "2", "3"), **options: Any
    ) -> tuple[PressPolicy, Trace]:
        model = LoadedModel(source=runtime.source, module=runtime.model)
        policy = PressPolicy(press=press, ranks=ranks, **options).ready(model, 0)
        context, _ = prefill(runtime, range(2, 42), policy.needs)
        layers = tuple(context.layers.values())
        trace = Trace(layers=layers, positions=torch.arange(40))
        return policy, trace.for_policy(policy.needs, words)

    return make
