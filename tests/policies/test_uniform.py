from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness import Policy, Protection
from kvharness.engine.select import score_tokens
from kvharness_policies.random import Random
from kvharness_policies.random_tied import RandomTied

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tests.policies.conftest import Keep, MakeTrace, NaiveKept


BOTH = pytest.mark.parametrize("policy", [Random(), RandomTied()], ids=["random", "tied"])


def scores_of(policy: Policy, make_trace: MakeTrace, *words: str) -> Tensor:
    return score_tokens(policy, make_trace(layers=3).for_policy(frozenset(), words), name="tested")


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


@pytest.mark.parametrize("budget", [3, 6, 10])
def test_keeps_the_highest_draws_beside_the_protected(
    budget: int, make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    trace = make_trace()
    scores = score_tokens(Random(), trace, name="tested").tolist()
    kept = keep(Random(), trace, budget, Protection(sinks=1, recents=2))
    assert kept == [
        [naive_kept(head, budget, sinks=1, recents=2) for head in layer] for layer in scores
    ]
