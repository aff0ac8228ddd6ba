from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness.engine.select import score_tokens
from kvharness_policies.lava import LAVa
from tests.policies.conftest import choice_of
from tests.policies.test_head_wise import NOTHING, TOKENS, naive_rounded, protected

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness.policy.trace import LayerTrace
    from tests.policies.conftest import MakeTrace, Rows


def naive_lava(maps: list[Rows], values: Rows, window: int, kernel: int) -> list[float]:
    """Scores of one KV head, max-pooled."""
    tokens = len(values)
    prefix = tokens - min(window, tokens)
    if prefix == 0:
        return [0.0] * tokens
    largest = max(sum(abs(x) for x in value) for value in values[:prefix])
    best = [0.0] * tokens
    for rows in maps:
        mean = [sum(row[j] for row in rows[prefix:]) / (tokens - prefix) for j in range(prefix)]
        for j in range(prefix):
            near = mean[max(0, j - kernel // 2) : j + kernel // 2 + 1]
            best[j] = max(best[j], largest * max(near))
    return best


@pytest.mark.parametrize("tokens", [1, 3, 4, 12])
def test_lava_scores_equal_the_naive_ones(
    tokens: int,
    make_trace: MakeTrace,
    naive_attention: Callable[[LayerTrace, int], Rows],
    group: Callable[[int], range],
) -> None:
    policy = LAVa(window=3, kernel=3)
    trace = make_trace(tokens=tokens)
    scores = score_tokens(policy, trace.for_policy(policy.needs, ("1", "2", "3")), name="tested")
    for index, layer in enumerate(trace.layers):
        for k in range(2):
            maps = [naive_attention(layer, h) for h in group(k)]
            expected = naive_lava(maps, layer.values[k].tolist(), 3, 3)
            torch.testing.assert_close(scores[index, k], torch.tensor(expected))


def naive_entropy(numbers: list[float]) -> float:
    shares = [number / sum(numbers) for number in numbers]
    return -sum(p * math.log(p) for p in shares if p > 0) / math.log(len(shares))


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 1.0])
def test_lava_gives_layers_entries_by_entropy_and_heads_by_score(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sharpness = torch.tensor([1.0, 4.0, 20.0])[:, None, None]
    scores = torch.rand(3, 2, TOKENS, generator=generator).pow(sharpness)
    shown = scores.clone()
    shown[..., 0] = 100.0  # protected, and no part of the entropy
    found = LAVa(alpha=alpha).allocate(choice_of(shown, 8, protected(sinks=1, recents=2)))
    entropies = [naive_entropy(layer[:, 1:-2].flatten().tolist()) for layer in scores]
    real = [5 * 2 * 3 * each / sum(entropies) for each in entropies]
    for layer, due, budgets in zip(scores, naive_rounded(real, 30), found.tolist(), strict=True):
        free = layer[:, 1:-2].tolist()
        ranked = sorted((-number, h) for h in range(2) for number in free[h])
        own = [sum(h == head for _, h in ranked[:due]) for head in range(2)]
        shares = [(1 - alpha) * each + alpha * due / 2 for each in own]
        assert budgets == [3 + each for each in naive_rounded(shares, due)]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_layers_without_contrast_share_alike(value: float) -> None:
    scores = torch.full((3, 2, TOKENS), value)
    assert LAVa(alpha=1).allocate(choice_of(scores, 9, NOTHING)).unique().tolist() == [9]
    spikes = torch.zeros(3, 1, TOKENS)
    spikes[..., 4] = 1.0
    assert LAVa().allocate(choice_of(spikes, 9, NOTHING)).unique().tolist() == [9]
