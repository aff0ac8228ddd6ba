from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import ColumnSums
from kvharness.engine.select import score_tokens
from kvharness_policies.h2o import H2O

if TYPE_CHECKING:
    from tests.policies.conftest import Keep, MakeTrace, NaiveKept


@pytest.mark.parametrize("budget", [1, 2, 5, 8, 12])
def test_h2o_keeps_the_recent_half_and_the_heavy_hitters(
    budget: int, make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    trace = make_trace(tokens=12)
    scores = score_tokens(H2O(), trace, name="tested").tolist()
    kept = keep(H2O(), trace, budget)
    assert kept == [
        [naive_kept(head, budget, recents=budget // 2) for head in layer] for layer in scores
    ]
    recent_half = set(range(12 - budget // 2, 12))
    assert all(recent_half <= set(head) for layer in kept for head in layer)


def test_h2o_keeps_the_recent_half_though_early_tokens_score_higher(
    make_trace: MakeTrace, keep: Keep
) -> None:
    trace = make_trace(tokens=12, layers=1)
    falling = torch.arange(12, 0, -1).float().repeat(4, 1)
    trace = replace(trace, layers=(replace(trace.layers[0], observed={ColumnSums(): falling}),))
    assert keep(H2O(), trace, 5) == [[[0, 1, 2, 10, 11]] * 2]
