from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness import Needs, Policy, Protection
from kvharness_policies.chance import Random, RandomTied

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tests.policies.conftest import Keep, MakeTrace, NaiveKept

BOTH = pytest.mark.parametrize("policy", [Random(), RandomTied()], ids=["random", "tied"])


def scores_of(policy: Policy, make_trace: MakeTrace, *words: str) -> Tensor:
    return policy.score_all(make_trace(layers=3).for_policy(Needs(), words))


@BOTH
def test_scores_are_sound(policy: Policy, check_scores: Callable[[Policy], None]) -> None:
    check_scores(policy)
    assert not policy.capabilities.deterministic


@BOTH
@settings(max_examples=50, deadline=None)
@given(seed=st.text(max_size=4), item=st.text(max_size=4))
def test_same_words_repeat_and_others_differ(
    policy: Policy, make_trace: MakeTrace, seed: str, item: str
) -> None:
    first = scores_of(policy, make_trace, seed, item, "p")
    assert torch.equal(first, scores_of(policy, make_trace, seed, item, "p"))
    assert not torch.equal(first, scores_of(policy, make_trace, seed + "0", item, "p"))
    assert not torch.equal(first, scores_of(policy, make_trace, seed, item + "0", "p"))
    assert ((first >= 0) & (first < 1)).all()


def test_random_differs_between_layers_and_heads(make_trace: MakeTrace) -> None:
    rows = scores_of(Random(), make_trace, "0").flatten(0, 1)
    assert len(rows) == 6
    assert not any(torch.equal(a, b) for a, b in combinations(rows, 2))


def test_tied_is_one_row_for_all_layers_and_heads(make_trace: MakeTrace) -> None:
    scores = scores_of(RandomTied(), make_trace, "0")
    assert torch.equal(scores, scores[:1, :1].expand_as(scores))
    assert len(scores[0, 0].unique()) == 10


@BOTH
def test_the_global_generator_is_neither_read_nor_moved(
    policy: Policy, make_trace: MakeTrace
) -> None:
    with torch.random.fork_rng(devices=[]):
        state = torch.get_rng_state()
        first = scores_of(policy, make_trace, "0")
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(1)
        assert torch.equal(first, scores_of(policy, make_trace, "0"))


@BOTH
@pytest.mark.parametrize("budget", [3, 6, 10])
def test_keeps_the_highest_draws_beside_the_protected(
    policy: Policy, budget: int, make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    trace = make_trace()
    scores = policy.score_all(trace).tolist()
    kept = keep(policy, trace, budget, Protection(sinks=1, recents=2))
    assert kept == [
        [naive_kept(head, budget, sinks=1, recents=2) for head in layer] for layer in scores
    ]


def test_every_token_is_as_likely_as_any_other(make_trace: MakeTrace, keep: Keep) -> None:
    trace = make_trace(layers=500)
    counts = [0] * 10
    for layer in keep(Random(), trace, 3):
        for head in layer:
            for j in head:
                counts[j] += 1
    # 1000 draws at p = 0.3: the standard deviation is 14.5.
    assert all(abs(count - 300) < 5 * 14.5 for count in counts)
