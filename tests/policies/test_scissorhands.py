from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Protection, Queries
from kvharness.engine.select import score_tokens
from kvharness_policies.decode_proximal import DecodeProximal
from kvharness_policies.scissorhands import Scissorhands

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import Policy
    from kvharness.policy.trace import LayerTrace
    from tests.policies.conftest import Keep, MakeTrace, Rows


POLICIES = [
    Scissorhands(window=4),
    Scissorhands(),
    Scissorhands(window=5, record="mean"),
    DecodeProximal(window=4, tau=2.0),
    DecodeProximal(),
]


def naive(maps: list[Rows], policy: Policy) -> list[float]:
    """Scores of one KV head from the attention maps of its query heads."""
    tokens = len(maps[0])
    assert isinstance(policy, Scissorhands | DecodeProximal)
    rows = range(max(0, tokens - policy.window), tokens)
    scores = []
    for j in range(tokens):
        seen = [i for i in rows if i >= j]
        received = 0.0
        for attention in maps:
            if isinstance(policy, DecodeProximal):
                near = {i: math.exp((i - tokens + 1) / policy.tau) for i in seen}
                total = sum(near[i] * attention[i][j] for i in seen)
                received += total / sum(near.values())
            elif policy.record == "mean":
                received += sum(attention[i][j] for i in seen) / len(rows)
            else:
                received -= sum(attention[i][j] < 1 / (i + 1) - 1e-4 for i in seen)
        scores.append(received / len(maps))
    return scores


@pytest.mark.parametrize("policy", POLICIES)
def test_scores_are_sound(policy: Policy, check_scores: Callable[[Policy], None]) -> None:
    check_scores(policy)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("tokens", [1, 4, 5, 12])
def test_scores_equal_the_naive_ones(
    policy: Policy,
    tokens: int,
    make_trace: MakeTrace,
    naive_attention: Callable[[LayerTrace, int], Rows],
    group: Callable[[int], range],
) -> None:
    trace = make_trace(tokens=tokens)
    scores = score_tokens(policy, trace.for_policy(policy.needs, ("1", "2", "3")), name="tested")
    for index, layer in enumerate(trace.layers):
        for k in range(2):
            maps = [naive_attention(layer, h) for h in group(k)]
            expected = torch.tensor(naive(maps, policy), dtype=torch.float32)
            torch.testing.assert_close(scores[index, k], expected)


def test_equal_keys_are_all_pivotal(make_trace: MakeTrace) -> None:
    view = make_trace(tokens=10, layers=1).views[0]
    view.keys.zero_()
    assert Scissorhands().score(view).unique().tolist() == [0.0]


def test_scissorhands_protects_its_recents_and_no_sinks(make_trace: MakeTrace, keep: Keep) -> None:
    policy = Scissorhands(recents=3)
    assert policy.protect(12, 6) == Protection(sinks=0, recents=3)
    assert all(
        {9, 10, 11} <= {*head} for layer in keep(policy, make_trace(tokens=12), 4) for head in layer
    )
    assert Scissorhands(window=7).needs == frozenset({Queries(7)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scissorhands(window=0), "window=0: expected 1 or more"),
        (lambda: Scissorhands(recents=-1), "recents=-1: expected 0 or more"),
        (lambda: Scissorhands(record="sum"), "record='sum': expected one of count, mean"),
        (lambda: DecodeProximal(window=0), "window=0: expected 1 or more"),
        (lambda: DecodeProximal(tau=0), "tau=0: expected a number of tokens above 0"),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], Policy], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
