from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Protection
from kvharness.engine.select import score_tokens
from kvharness_policies.ada import Ada
from kvharness_policies.pyramidkv import PyramidKV
from kvharness_policies.snapkv import SnapKV
from tests.policies.conftest import choice_of
from tests.policies.test_head_wise import NOTHING, TOKENS, naive_rounded, protected

if TYPE_CHECKING:
    from tests.policies.conftest import Keep, MakeTrace, NaiveKept


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("budget", [3, 5, 12, 20, 24])
def test_ada_shares_a_layer_by_its_highest_scores(alpha: float, budget: int) -> None:
    scores = torch.rand(3, 2, TOKENS, generator=torch.Generator().manual_seed(0))
    scores[1, 0] *= 2
    scores[2] = scores[2].round(decimals=1)
    found = Ada(SnapKV(), alpha=alpha).allocate(
        choice_of(scores, budget, protected(sinks=1, recents=2))
    )
    free = budget - 3
    for layer, budgets in zip(scores.tolist(), found.tolist(), strict=True):
        ranked = sorted((-layer[h][j], h, j) for h in range(2) for j in range(1, TOKENS - 2))
        own = [sum(h == head for _, h, _ in ranked[: 2 * free]) for head in range(2)]
        real = [(1 - alpha) * each + alpha * free for each in own]
        assert budgets == [3 + each for each in naive_rounded(real, 2 * free)]


def test_ada_shares_what_the_wrapped_policy_gives_each_layer() -> None:
    scores = torch.rand(4, 2, TOKENS, generator=torch.Generator().manual_seed(0))
    inner = PyramidKV(beta=4)
    totals = inner.allocate(choice_of(scores, 9, NOTHING)).sum(dim=1)
    found = Ada(inner, alpha=0).allocate(choice_of(scores, 9, NOTHING))
    assert torch.equal(found.sum(dim=1), totals)
    assert (found[:, 0] != found[:, 1]).any()


def test_ada_keeps_the_best_of_each_head_within_its_budget(
    make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    policy, trace = Ada(SnapKV(window=2, kernel=1), alpha=0), make_trace(tokens=TOKENS, seed=3)
    scores = score_tokens(policy, trace.for_policy(policy.needs, ("1", "2", "3")), name="tested")
    kept = keep(policy, trace, 8, Protection(sinks=1, recents=1))
    budgets = policy.allocate(choice_of(scores, 8, protected(sinks=1, recents=2))).tolist()
    assert [[len(head) for head in layer] for layer in kept] == budgets
    assert kept == [
        [naive_kept(row, due, sinks=1, recents=2) for row, due in zip(layer, dues, strict=True)]
        for layer, dues in zip(scores.tolist(), budgets, strict=True)
    ]
