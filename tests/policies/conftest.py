"""Tiny traces, and slow plain-Python answers to compare with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import torch

from kvharness import Boundaries, Choice, ColumnSums, Future, Policy, Protection, Queries, Trace
from kvharness.engine.select import keep_mask, score_tokens
from kvharness.policy.trace import LayerTrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kvharness import Observation

HEADS, KV_HEADS, SIZE = 4, 2, 4
SCALING = 0.7
#: All queries there are, and as many as any policy asks for.
QUERIES = Queries(1 << 20)
COUNTS = (*range(1, 65), 128, 400, QUERIES.count, 1 << 30)

Rows = list[list[float]]


def choice_of(scores: Tensor, budget: int, protected: Tensor, trace: Trace | None = None) -> Choice:
    """What a policy chooses from, with scores of our own, ``[layers, K, n]``."""
    layers, heads, tokens = scores.shape
    empty = torch.zeros(heads, tokens, 1)
    layer = LayerTrace(keys=empty, values=empty, scaling=1.0)
    blank = Trace(layers=(layer,) * layers, positions=torch.arange(tokens))
    return Choice(scores=scores, budget=budget, protected=protected, trace=trace or blank)


class MakeTrace(Protocol):
    def __call__(
        self, *, tokens: int = ..., layers: int = ..., seed: int = ..., dtype: torch.dtype = ...
    ) -> Trace: ...


class Keep(Protocol):
    """Kept positions by layer and KV head."""

    def __call__(
        self, policy: Policy, trace: Trace, budget: int, protection: Protection = ...
    ) -> list[list[list[int]]]: ...


class NaiveKept(Protocol):
    def __call__(
        self, scores: list[float], budget: int, sinks: int = ..., recents: int = ...
    ) -> list[int]: ...


def _attention(layer: LayerTrace, head: int) -> Rows:
    """Row ``i`` is the causal softmax of token ``i``; zeros where it cannot look."""
    keys = layer.keys[head // (HEADS // KV_HEADS)].float().tolist()
    queries = layer.observed[QUERIES][head].float().tolist()
    rows = []
    for i, query in enumerate(queries):
        weights = [
            math.exp(layer.scaling * sum(a * b for a, b in zip(query, key, strict=True)))
            for key in keys[: i + 1]
        ]
        rows.append([w / sum(weights) for w in weights] + [0.0] * (len(keys) - i - 1))
    return rows


def _layer(tokens: int, generator: torch.Generator, dtype: torch.dtype) -> LayerTrace:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    keys, values = (draw(KV_HEADS, tokens, SIZE).to(dtype) for _ in range(2))
    queries = draw(HEADS, tokens, SIZE).to(dtype)
    bare = LayerTrace(keys=keys, values=values, scaling=SCALING, observed={QUERIES: queries})
    sums = [[sum(c) for c in zip(*_attention(bare, h), strict=True)] for h in range(HEADS)]
    observed: dict[Observation[Any], Any] = {Queries(w): queries[:, -w:] for w in COUNTS}
    observed[ColumnSums()] = torch.tensor(sums, dtype=torch.float32)
    observed[Future()] = draw(HEADS, tokens).abs()
    return replace(bare, observed=observed)


def _make_trace(
    *, tokens: int = 10, layers: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Trace:
    generator = torch.Generator().manual_seed(seed)
    made = [_layer(tokens, generator, dtype) for _ in range(layers)]
    ends = torch.rand(tokens, generator=generator) < 0.3
    return Trace(
        layers=tuple(
            replace(layer, observed={**layer.observed, Boundaries(): ends}) for layer in made
        ),
        positions=torch.arange(tokens),
        rng_words=("seed", "item", "policy"),
    )


def _keep(
    policy: Policy,
    trace: Trace,
    budget: int,
    protection: Protection = Protection(sinks=0, recents=0),  # noqa: B008 - frozen
) -> list[list[list[int]]]:
    seen = trace.for_policy(policy.needs, trace.rng_words)
    mask = keep_mask(policy, seen, budget, protection.fit(budget), name="tested")
    return [[row.nonzero().flatten().tolist() for row in layer] for layer in mask]


def _naive_kept(scores: list[float], budget: int, sinks: int = 0, recents: int = 0) -> list[int]:
    n = len(scores)
    chosen = {j for j in range(n) if j < sinks or j >= n - recents}
    rest = sorted((j for j in range(n) if j not in chosen), key=lambda j: (-scores[j], j))
    return sorted(chosen | set(rest[: budget - len(chosen)]))


def _tensors(trace: Trace) -> list[Tensor]:
    found = (tensor for layer in trace.layers for _, tensor in layer.tensors())
    return [trace.positions, *found]


def _check_scores(policy: Policy) -> None:
    """Float32, finite, of the right shape, for two dtypes; inputs stay as they were."""
    for dtype in (torch.float32, torch.bfloat16):
        trace = _make_trace(dtype=dtype).for_policy(policy.needs, ("1", "2", "3"))
        before = [t.clone() for t in _tensors(trace)]
        scores = score_tokens(policy, trace, name="tested")
        assert scores.dtype == torch.float32
        assert scores.shape == (2, KV_HEADS, 10)
        assert scores.isfinite().all()
        assert all(torch.equal(a, b) for a, b in zip(before, _tensors(trace), strict=True))
        assert torch.equal(scores, score_tokens(policy, trace, name="tested"))


def _group(head: int) -> range:
    """The query heads that read a KV head."""
    return range(head * HEADS // KV_HEADS, (head + 1) * HEADS // KV_HEADS)


@pytest.fixture(scope="session")
def make_trace() -> MakeTrace:
    return _make_trace


@pytest.fixture(scope="session")
def keep() -> Keep:
    return _keep


@pytest.fixture(scope="session")
def naive_kept() -> NaiveKept:
    return _naive_kept


@pytest.fixture(scope="session")
def naive_attention() -> Callable[[LayerTrace, int], Rows]:
    return _attention


@pytest.fixture(scope="session")
def check_scores() -> Callable[[Policy], None]:
    return _check_scores


@pytest.fixture(scope="session")
def group() -> Callable[[int], range]:
    return _group
