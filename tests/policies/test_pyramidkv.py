from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness.engine.select import score_tokens
from kvharness_policies.pyramidkv import PyramidKV
from kvharness_policies.snapkv import SnapKV
from tests.policies.conftest import choice_of
from tests.policies.test_head_wise import TOKENS, naive_rounded, protected

if TYPE_CHECKING:
    from tests.policies.conftest import MakeTrace


def naive_pyramid(layers: int, budget: int, kept: int, beta: float) -> list[int]:
    """Entries of all (two) heads of each layer."""
    free, room = budget - kept, TOKENS - kept
    if layers == 1 or 2 * free > TOKENS:
        return [2 * budget] * layers
    least, most = free / beta, 2 * free - free / beta
    if most >= room:
        least, most = 2 * free - room, room
    step = (most - least) / (layers - 1)
    real = [2 * (most - layer * step) for layer in range(layers)]
    return [2 * kept + extra for extra in naive_rounded(real, 2 * free * layers)]


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
@pytest.mark.parametrize("budget", [3, 4, 7, 12, 14, 15, 19, 24])
@pytest.mark.parametrize("beta", [1, 2.5, 20])
def test_pyramid_budgets_fall_from_layer_to_layer(layers: int, budget: int, beta: float) -> None:
    scores = torch.zeros(layers, 2, TOKENS)
    budgets = PyramidKV(beta=beta).allocate(
        choice_of(scores, budget, protected(sinks=1, recents=2))
    )
    assert budgets.sum(dim=1).tolist() == naive_pyramid(layers, budget, 3, beta)
    assert int((budgets[:, 0] - budgets[:, 1]).abs().max()) <= 1


def test_pyramid_keeps_what_is_published_but_for_its_overspending() -> None:
    # 8000 tokens, 32 layers, window 8, 128 entries: officially 242 to 25, but 133.5 on average.
    order = torch.arange(8000)
    found = PyramidKV(window=8).allocate(choice_of(torch.zeros(32, 1, 8000), 128, order >= 7992))[
        :, 0
    ]
    assert (int(found[0]), int(found[-1])) == (242, 14)
    assert int(found.sum()) == 128 * 32


def test_pyramid_scores_are_snapkvs(make_trace: MakeTrace) -> None:
    policy = PyramidKV(window=3, kernel=3)
    trace = make_trace().for_policy(policy.needs, ("1", "2", "3"))
    assert torch.equal(
        score_tokens(policy, trace, name="tested"),
        score_tokens(SnapKV(window=3, kernel=3), trace, name="tested"),
    )
