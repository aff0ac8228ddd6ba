from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Policy, Protection
from kvharness.engine.select import score_tokens
from kvharness_policies.keydiff import KeyDiff
from kvharness_policies.knorm import Knorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.policies.conftest import Keep, MakeTrace, NaiveKept, Rows


BOTH = pytest.mark.parametrize("policy", [Knorm(), KeyDiff()], ids=["knorm", "keydiff"])


def norm(vector: list[float]) -> float:
    return math.sqrt(sum(x * x for x in vector))


def naive_knorm(keys: Rows) -> list[float]:
    return [-norm(key) for key in keys]


def naive_keydiff(keys: Rows) -> list[float]:
    units = [[x / norm(key) for x in key] for key in keys]
    anchor = [sum(column) / len(keys) for column in zip(*units, strict=True)]
    return [-sum(a * b for a, b in zip(unit, anchor, strict=True)) / norm(anchor) for unit in units]


@BOTH
def test_scores_are_sound(policy: Policy, check_scores: Callable[[Policy], None]) -> None:
    check_scores(policy)
    assert policy.needs == frozenset()


@pytest.mark.parametrize(
    ("policy", "naive"),
    [(Knorm(), naive_knorm), (KeyDiff(), naive_keydiff)],
    ids=["knorm", "keydiff"],
)
@pytest.mark.parametrize("tokens", [1, 2, 11])
def test_scores_equal_the_naive_ones(
    policy: Policy, naive: Callable[[Rows], list[float]], tokens: int, make_trace: MakeTrace
) -> None:
    trace = make_trace(tokens=tokens)
    expected = [[naive(head) for head in layer.keys.tolist()] for layer in trace.layers]
    torch.testing.assert_close(score_tokens(policy, trace, name="tested"), torch.tensor(expected))


@BOTH
@pytest.mark.parametrize("budget", [3, 5, 11])
def test_keeps_the_best_beside_the_protected(
    policy: Policy, budget: int, make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    trace = make_trace(tokens=11)
    scores = score_tokens(policy, trace, name="tested").tolist()
    assert keep(policy, trace, budget, Protection(sinks=2, recents=1)) == [
        [naive_kept(head, budget, sinks=2, recents=1) for head in layer] for layer in scores
    ]


@BOTH
def test_equal_keys_tie_and_the_earlier_position_wins(
    policy: Policy, make_trace: MakeTrace, keep: Keep
) -> None:
    trace = make_trace(tokens=8, layers=1)
    repeated = trace.layers[0].keys[:, :1].expand(-1, 8, -1)
    trace = replace(trace, layers=(replace(trace.layers[0], keys=repeated),))
    assert keep(policy, trace, 3) == [[[0, 1, 2]] * 2]


@BOTH
def test_a_zero_key_scores_finite(policy: Policy, make_trace: MakeTrace) -> None:
    view = make_trace(layers=1).views[0]
    zeros = replace(view, keys=torch.zeros_like(view.keys))
    assert torch.equal(policy.score(zeros), torch.zeros(2, 10))
