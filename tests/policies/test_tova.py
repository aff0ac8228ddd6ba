from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Queries
from kvharness.engine.select import score_tokens
from kvharness_policies.tova import TOVA
from tests.policies.test_snapkv import narrowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness.policy.trace import LayerTrace
    from tests.policies.conftest import Keep, MakeTrace, NaiveKept, Rows


@pytest.mark.parametrize("tokens", [1, 10])
def test_tova_scores_are_the_last_row_averaged_over_all_heads(
    tokens: int, make_trace: MakeTrace, naive_attention: Callable[[LayerTrace, int], Rows]
) -> None:
    trace = make_trace(tokens=tokens)
    scores = score_tokens(TOVA(), narrowed(TOVA(), trace), name="tested")
    for index, layer in enumerate(trace.layers):
        last = [naive_attention(layer, h)[-1] for h in range(4)]
        expected = torch.tensor([sum(row[j] for row in last) / 4 for j in range(tokens)])
        torch.testing.assert_close(scores[index, 0], expected)
        assert torch.equal(scores[index, 0], scores[index, 1])


@pytest.mark.parametrize("budget", [1, 4, 10])
def test_tova_keeps_the_same_tokens_in_all_heads(
    budget: int, make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    trace = make_trace(tokens=10)
    scores = score_tokens(TOVA(), narrowed(TOVA(), trace), name="tested").tolist()
    for layer, kept in zip(scores, keep(TOVA(), trace, budget), strict=True):
        assert kept == [naive_kept(layer[0], budget)] * 2


def test_tova_may_drop_the_last_token(make_trace: MakeTrace, keep: Keep) -> None:
    trace = make_trace(tokens=6, layers=1)
    keys = torch.zeros_like(trace.layers[0].keys)
    keys[:, 5] = -1.0
    layer = replace(trace.layers[0], keys=keys, observed={Queries(1): torch.ones(4, 1, 4)})
    assert keep(TOVA(), replace(trace, layers=(layer,)), 3) == [[[0, 1, 2]] * 2]
