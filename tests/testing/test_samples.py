from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from kvharness import (
    Boundaries,
    ColumnSums,
    Drawn,
    Ends,
    Future,
    HiddenSimilarity,
    HiddenStates,
    Observation,
    Queries,
    Reading,
    Text,
    afterwards,
    causal_attention,
)
from kvharness.testing.letters import LETTERS
from kvharness.testing.samples import unsampled
from tests.model.test_context_reading import Cheat, Saliency, ValueSums

TOKENS = 9


def drawn() -> Drawn:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Drawn(
        queries=draw(4, TOKENS, 8),
        keys=draw(2, TOKENS, 8),
        values=draw(2, TOKENS, 8),
        scaling=0.5,
        ahead=draw(4, TOKENS),
        similarity=0.25,
        encoder=LETTERS,
        chunk=4,
    )


@dataclass(frozen=True)
class Hooked(Observation[float]):
    def observing(self, reading: Reading) -> Any:
        return afterwards(lambda: dict.fromkeys(reading.layers, float(reading.model.training)))


@dataclass(frozen=True)
class Mistaken(Observation[float]):
    """A mistake of its author is no reason to check nothing."""

    def observing(self, reading: Reading) -> Any:
        return afterwards(lambda: dict.fromkeys(reading.layers, 0.0))

    def sample(self, drawn: Drawn) -> float:
        return drawn.nothing  # type: ignore[attr-defined, no-any-return]


OURS: tuple[Observation[Any], ...] = (
    Queries(3),
    ColumnSums(),
    Future(),
    HiddenSimilarity(),
    Boundaries(),
    HiddenStates(),
    Ends(prefix=2, suffix=2),
    Text(text="abc", count=5),
)


@pytest.mark.parametrize("observation", [*OURS, ValueSums(2.0), Cheat(), Mistaken()], ids=str)
def test_most_can_be_drawn(observation: Observation[Any]) -> None:
    assert not unsampled(frozenset({observation}))


@pytest.mark.parametrize(
    ("observation", "reason"),
    [(Hooked(), "it looks at the model"), (Saliency(), "it reads the context again")],
)
def test_what_needs_a_model_is_named(observation: Observation[Any], reason: str) -> None:
    told = unsampled(frozenset({*OURS, observation}))
    assert told == f"{observation} cannot be drawn ({reason}); give it a method sample(drawn)"


def test_a_layer_is_shown_as_it_attends() -> None:
    given = drawn()
    assert torch.equal(ValueSums(2.0).sample(given), 2 * given.values.sum(dim=-1))
    assert torch.equal(Queries(3).sample(given), given.queries[:, -3:])
    rows = causal_attention(given.queries, given.keys, given.scaling)
    torch.testing.assert_close(ColumnSums().sample(given), rows.sum(dim=1))


def test_ids_read_after_it_are_tokens_of_the_context() -> None:
    given, probe = drawn(), Text(text="kvharness", count=12)
    (part,) = probe.sample(given)
    places = [each % TOKENS for each in LETTERS.ids("kvharnesskvharness")[:12]]
    assert torch.equal(part.queries, given.queries[:, places])
    assert torch.equal(part.keys, given.keys[:, places])
    assert (part.first, part.last) == (0, TOKENS)


def test_what_is_noted_are_copies() -> None:
    given = drawn()
    before = given.queries.clone()
    Queries(9).sample(given).zero_()
    Future().sample(given).zero_()
    assert torch.equal(given.queries, before)
    assert given.ahead.abs().sum() > 0
