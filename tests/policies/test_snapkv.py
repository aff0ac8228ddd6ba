from __future__ import annotations

import pickle
from dataclasses import asdict, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness import Policy, Protection, Queries
from kvharness.engine.select import score_tokens
from kvharness_policies.snapkv import SnapKV
from kvharness_policies.tova import TOVA

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import Trace
    from kvharness.policy.trace import LayerTrace
    from tests.policies.conftest import Keep, MakeTrace, NaiveKept, Rows


SMALL = SnapKV(window=3, kernel=3)


def narrowed(policy: Policy, trace: Trace) -> Trace:
    return trace.for_policy(policy.needs, ("seed", "item", "policy"))


def naive_pool(row: list[float], kernel: int, pooling: str) -> list[float]:
    if pooling == "none":
        return row
    pooled = []
    for j in range(len(row)):
        near = row[max(0, j - kernel // 2) : j + kernel // 2 + 1]
        pooled.append(max(near) if pooling == "max" else sum(near) / kernel)
    return pooled


def naive_snapkv(maps: list[Rows], policy: SnapKV) -> list[float]:
    """Scores of one KV head from the attention maps of its query heads."""
    tokens = len(maps[0])
    window = min(policy.window, tokens)
    prefix = tokens - window
    pooled = []
    for rows in maps:
        received = [sum(row[j] for row in rows[prefix:]) / window for j in range(prefix)]
        pooled.append(naive_pool(received, policy.kernel, policy.pooling))
    return [sum(p[j] for p in pooled) / len(maps) for j in range(prefix)] + [0.0] * window


@pytest.mark.parametrize("policy", [SnapKV(), SMALL, TOVA()])
def test_scores_are_sound(policy: Policy, check_scores: Callable[[Policy], None]) -> None:
    check_scores(policy)


@pytest.mark.parametrize("tokens", [1, 3, 4, 6, 12])
@pytest.mark.parametrize("pooling", ["max", "avg", "none"])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_snapkv_scores_equal_the_naive_ones(
    tokens: int,
    pooling: str,
    kernel: int,
    make_trace: MakeTrace,
    naive_attention: Callable[[LayerTrace, int], Rows],
    group: Callable[[int], range],
) -> None:
    policy = SnapKV(window=3, kernel=kernel, pooling=pooling)
    trace = make_trace(tokens=tokens)
    scores = score_tokens(policy, narrowed(policy, trace), name="tested")
    for index, layer in enumerate(trace.layers):
        for k in range(2):
            maps = [naive_attention(layer, h) for h in group(k)]
            expected = torch.tensor(naive_snapkv(maps, policy))
            torch.testing.assert_close(scores[index, k], expected)


@pytest.mark.parametrize("budget", [1, 3, 4, 6, 9, 12])
def test_snapkv_keeps_its_window_and_the_best_of_the_prefix(
    budget: int, make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    trace = make_trace(tokens=12)
    scores = score_tokens(SMALL, narrowed(SMALL, trace), name="tested").tolist()
    recents = min(3, budget)
    assert keep(SMALL, trace, budget) == [
        [naive_kept(head, budget, recents=recents) for head in layer] for layer in scores
    ]


@pytest.mark.parametrize("budget", [2, 3, 4, 8])
def test_the_window_shrinks_before_the_contracts_sinks(
    budget: int, make_trace: MakeTrace, keep: Keep
) -> None:
    kept = keep(SnapKV(window=32), make_trace(tokens=12), budget, Protection(sinks=2, recents=1))
    assert kept == [[[0, 1, *range(14 - budget, 12)]] * 2] * 2


def test_equal_scores_go_to_the_earlier_position(make_trace: MakeTrace, keep: Keep) -> None:
    trace = make_trace(tokens=12, layers=1)
    # One key draws all attention, so max-pooling makes a plateau of three around it.
    keys = torch.zeros_like(trace.layers[0].keys)
    keys[:, 5, 0] = 20.0
    layer = replace(trace.layers[0], keys=keys, observed={Queries(3): torch.ones(4, 3, 4)})
    kept = keep(SMALL, replace(trace, layers=(layer,)), 5)
    assert kept == [[[4, 5, 9, 10, 11]] * 2]


@pytest.mark.parametrize("policy", [SMALL, SnapKV(window=32), TOVA()])
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 99), sinks=st.integers(0, 5), recents=st.integers(0, 8))
def test_a_smaller_budget_keeps_a_subset(
    policy: Policy, make_trace: MakeTrace, keep: Keep, seed: int, sinks: int, recents: int
) -> None:
    assert policy.capabilities.nested
    trace = make_trace(tokens=9, layers=1, seed=seed)
    protection = Protection(sinks=sinks, recents=recents)
    budgets = range(max(1, sinks), 10)
    kept = [keep(policy, trace, budget, protection)[0] for budget in budgets]
    for small, large in pairwise(kept):
        assert all(set(a) < set(b) for a, b in zip(small, large, strict=True))


def test_snapkv_needs_its_window_and_keeps_it_through_copies() -> None:
    policy = SnapKV(window=5)
    assert policy.needs == frozenset({Queries(5)})
    assert SnapKV().needs == frozenset({Queries(32)})
    assert pickle.loads(pickle.dumps(policy)).needs == frozenset({Queries(5)})  # noqa: S301
    assert replace(policy, window=6).needs == frozenset({Queries(6)})
    assert asdict(policy) == {"window": 5, "kernel": 7, "pooling": "max"}
    assert policy != SnapKV(window=6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SnapKV(pooling="mean"), "pooling='mean': expected one of max, avg, none"),
        (lambda: SnapKV(kernel=4), "kernel=4: expected an odd number"),
        (lambda: SnapKV(kernel=-1), "kernel=-1: expected an odd number"),
        (lambda: SnapKV(window=0), "window=0: expected 1 or more"),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], SnapKV], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
