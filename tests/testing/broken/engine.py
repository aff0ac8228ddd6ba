"""Choices that go wrong when a model reads the cache, or when it is compressed again."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from kvharness import (
    Capabilities,
    Drawn,
    Observation,
    Observer,
    Policy,
    Positions,
    Reading,
    afterwards,
)
from tests.testing.broken.interface import Zeros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kvharness import Choice, LoadedModel, View


class TunesTheModel(Zeros):
    """Changes the model that all policies share."""

    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del seed
        with torch.no_grad():
            model.module.get_output_embeddings().weight.mul_(1.5)
        return self


@dataclass(frozen=True)
class Swapping(Observation[None]):
    """Its hook returns other hidden states, which all policies then get their keys from."""

    @contextmanager
    def observing(self, reading: Reading) -> Iterator[Observer[None]]:
        layers: Any = reading.model.get_decoder().layers
        with (
            layers[0].register_forward_hook(lambda _module, _given, hidden: hidden.flip(-1)),
            afterwards(lambda: dict.fromkeys(reading.layers)) as observer,
        ):
            yield observer

    def sample(self, drawn: Drawn) -> None:
        """Nothing is seen."""


class SpoilsWhatIsRead(Zeros):
    needs = frozenset({Swapping()})


class Blind(Swapping):
    def observing(self, reading: Reading) -> Any:
        raise RuntimeError(f"it is too dark to read {len(reading.context)} tokens")


class SeesNothing(Zeros):
    needs = frozenset({Blind()})


class CompactButUneven(Zeros):
    positions = Positions.COMPACT
    capabilities = Capabilities(head_wise=True, nested=False)

    def allocate(self, choice: Choice) -> Tensor:
        budgets = super().allocate(choice)
        if choice.scores.shape[1] > 1 and 10 <= choice.budget < choice.scores.shape[2]:
            budgets[0, 0] += 1
            budgets[0, 1] -= 1
        return budgets


@dataclass(frozen=True)
class ReusesItsMask(Zeros):
    """Saves an allocation, and changes the mask of a cell that it has selected for already."""

    buffers: dict[tuple[int, ...], Tensor] = field(default_factory=dict, compare=False)

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        mask = super().select(choice, budgets)
        return self.buffers.setdefault(tuple(mask.shape), mask).copy_(mask)


class IndexesByPosition(Policy):
    """Takes positions for slots, which they are until something is evicted."""

    def score(self, view: View) -> Tensor:
        scores = torch.zeros(view.kv_heads, view.tokens)
        scores[:, view.positions] = view.positions.float()
        return scores
