from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness.engine.select import score_tokens
from kvharness_policies.value_blocks import ValueBlocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness.policy.trace import LayerTrace
    from tests.policies.conftest import Keep, MakeTrace, Rows


def naive_change(row: list[float], values: Rows, block: int, *, leverage: bool) -> list[float]:
    """Of each token's block: how far the output moves when the block is deleted."""
    size, tokens = len(values[0]), len(values)
    output = [sum(row[j] * values[j][x] for j in range(tokens)) for x in range(size)]
    changes = []
    for j in range(tokens):
        first = j // block * block
        gone = range(first, min(tokens, first + block))
        left = [i for i in range(tokens) if i not in gone]
        mass = round(sum(row[i] for i in gone), 12)
        if mass in {0.0, 1.0}:
            # Not seen, or nothing is left to attend to: by the formula mu is o.
            changes.append(0.0)
        elif leverage:
            # The definition itself: attention without the block, made to add up to 1 again.
            after = [sum(row[i] * values[i][x] for i in left) / (1 - mass) for x in range(size)]
            changes.append(math.dist(output, after) ** 2)
        else:
            mean = [sum(row[i] * values[i][x] for i in gone) / mass for x in range(size)]
            changes.append(mass**2 * math.dist(mean, output) ** 2)
    return changes


@pytest.mark.parametrize("leverage", [True, False])
@pytest.mark.parametrize(("block", "tokens"), [(1, 9), (4, 9), (4, 12), (16, 33), (5, 6)])
def test_block_scores_equal_the_naive_ones(
    leverage: bool,  # noqa: FBT001 - a parameter
    block: int,
    tokens: int,
    make_trace: MakeTrace,
    naive_attention: Callable[[LayerTrace, int], Rows],
    group: Callable[[int], range],
) -> None:
    policy = ValueBlocks(block=block, leverage=leverage, window=3)
    trace = make_trace(tokens=tokens)
    scores = score_tokens(policy, trace.for_policy(policy.needs, ("1", "2", "3")), name="tested")
    for index, layer in enumerate(trace.layers):
        for k in range(2):
            rows = [row for h in group(k) for row in naive_attention(layer, h)[-3:]]
            values = layer.values[k].tolist()
            each = [naive_change(row, values, block, leverage=leverage) for row in rows]
            expected = torch.tensor([sum(c) / len(rows) for c in zip(*each, strict=True)])
            torch.testing.assert_close(scores[index, k], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 3])
def test_one_block_that_is_everything_is_finite(tokens: int, make_trace: MakeTrace) -> None:
    scores = score_tokens(ValueBlocks(), make_trace(tokens=tokens), name="tested")
    assert scores.abs().max() < 1e-9


def test_whole_blocks_are_kept_and_then_the_first_of_the_next(
    make_trace: MakeTrace, keep: Keep
) -> None:
    policy = ValueBlocks(block=4, window=2)
    trace = make_trace(tokens=22)
    scores = score_tokens(policy, trace.for_policy(policy.needs, ("1", "2", "3")), name="tested")
    for layer, heads in zip(scores[..., :20:4].tolist(), keep(policy, trace, 12), strict=True):
        for blocks, kept in zip(layer, heads, strict=True):
            best = sorted(range(5), key=lambda c: -blocks[c])
            whole = [4 * c + x for c in best[:2] for x in range(4)]
            part = [4 * best[2], 4 * best[2] + 1]
            assert kept == sorted([*whole, *part, 20, 21])
