"""Policies that read what no key covers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvharness import Drawn, Observation, Reading, afterwards
from tests.testing.broken.interface import Zeros

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import LoadedModel, Policy, View

#: Of this project, and of no package.
OUTSIDE = Path(__file__).parents[3] / "pyproject.toml"
VARIABLE = "A_POLICY_OF_THE_TESTS"


class ReadsAFile(Zeros):
    def score(self, view: View) -> Tensor:
        with OUTSIDE.open() as file:
            assert file.readline()
        return super().score(view)


class ReadsItOnce(Zeros):
    """What another check ran may have read it already."""

    def score(self, view: View) -> Tensor:
        assert _read_once()
        return super().score(view)


@cache
def _read_once() -> str:
    return OUTSIDE.read_text()


class PreparesFromAFile(Zeros):
    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del model, seed
        assert OUTSIDE.read_bytes()
        return Zeros()


class AsksTheEnvironment(Zeros):
    def score(self, view: View) -> Tensor:
        return super().score(view) * float(os.environ.get(VARIABLE, "1"))


class PreparesFromTheEnvironment(Zeros):
    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del model, seed
        assert VARIABLE not in os.environ
        return self


@dataclass(frozen=True)
class FromAFile(Observation[float]):
    def observing(self, reading: Reading) -> Any:
        return afterwards(lambda: dict.fromkeys(reading.layers, float(len(OUTSIDE.read_bytes()))))

    def sample(self, drawn: Drawn) -> float:
        return drawn.similarity


class ObservesAFile(Zeros):
    needs = frozenset({FromAFile()})


@dataclass(frozen=True)
class Unsampled(FromAFile):
    """Of a model, so that the kit cannot draw it."""

    sample = Observation.sample

    def observing(self, reading: Reading) -> Any:
        assert not reading.model.training
        return super().observing(reading)


class ObservesAFileUnsampled(Zeros):
    needs = frozenset({Unsampled()})
