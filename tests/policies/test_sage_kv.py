from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Protection
from kvharness.engine.select import score_tokens
from kvharness_policies.sage_kv import SageKV

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import Policy
    from kvharness.policy.trace import LayerTrace
    from tests.policies.conftest import Keep, MakeTrace, NaiveKept, Rows


def test_scores_are_sound(check_scores: Callable[[Policy], None]) -> None:
    check_scores(SageKV())


@pytest.mark.parametrize("tokens", [1, 10])
def test_sage_scores_are_the_largest_of_the_group_in_the_last_row(
    tokens: int,
    make_trace: MakeTrace,
    naive_attention: Callable[[LayerTrace, int], Rows],
    group: Callable[[int], range],
) -> None:
    trace = make_trace(tokens=tokens)
    scores = score_tokens(
        SageKV(), trace.for_policy(SageKV().needs, ("1", "2", "3")), name="tested"
    )
    for index, layer in enumerate(trace.layers):
        for k in range(2):
            last = [naive_attention(layer, h)[-1] for h in group(k)]
            expected = torch.tensor([max(row[j] for row in last) for j in range(tokens)])
            torch.testing.assert_close(scores[index, k], expected)


def test_sage_keeps_sinks_recents_and_the_best_between(
    make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    policy, trace = SageKV(sinks=2, recents=3), make_trace(tokens=12)
    scores = score_tokens(
        policy, trace.for_policy(policy.needs, ("1", "2", "3")), name="tested"
    ).tolist()
    assert keep(policy, trace, 8) == [
        [naive_kept(head, 8, sinks=2, recents=3) for head in layer] for layer in scores
    ]
    assert SageKV().protect(100, 80) == Protection(sinks=4, recents=64)
    with pytest.raises(ValueError, match="recents=-1: expected 0 or more"):
        SageKV(recents=-1)
