from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Protection
from kvharness_policies.allocation import Ada, LAVa, PyramidKV
from kvharness_policies.position import StreamingLLM
from kvharness_policies.window import SnapKV

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import Policy
    from kvharness.trace import LayerTrace
    from tests.policies.conftest import Keep, MakeTrace, NaiveKept, Rows

TOKENS = 24
NOTHING = torch.zeros(TOKENS, dtype=torch.bool)


def protected(*, sinks: int = 0, recents: int = 0) -> torch.Tensor:
    order = torch.arange(TOKENS)
    return (order < sinks) | (order >= TOKENS - recents)


def naive_rounded(real: list[float], total: int) -> list[int]:
    """The largest remainders go up, earlier ones first."""
    whole = [math.floor(number + 1e-9) for number in real]
    order = sorted(range(len(real)), key=lambda i: (-round(real[i] - whole[i], 6), i))
    for i in order[: total - sum(whole)]:
        whole[i] += 1
    return whole


@pytest.mark.parametrize(
    "policy", [PyramidKV(window=3), LAVa(window=3), LAVa(pooling="avg"), Ada(SnapKV(window=3))]
)
def test_scores_are_sound(policy: Policy, check_scores: Callable[[Policy], None]) -> None:
    check_scores(policy)
    assert policy.capabilities.head_wise


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
    budgets = PyramidKV(beta=beta).allocate(scores, budget, protected(sinks=1, recents=2))
    assert budgets.sum(dim=1).tolist() == naive_pyramid(layers, budget, 3, beta)
    assert int((budgets[:, 0] - budgets[:, 1]).abs().max()) <= 1


def test_pyramid_keeps_what_is_published_but_for_its_overspending() -> None:
    # 8000 tokens, 32 layers, window 8, 128 entries: officially 242 to 25, but 133.5 on average.
    order = torch.arange(8000)
    found = PyramidKV(window=8).allocate(torch.zeros(32, 1, 8000), 128, order >= 7992)[:, 0]
    assert (int(found[0]), int(found[-1])) == (242, 14)
    assert int(found.sum()) == 128 * 32


def test_pyramid_scores_are_snapkvs(make_trace: MakeTrace) -> None:
    policy = PyramidKV(window=3, kernel=3)
    trace = make_trace().for_policy(policy.needs, ("1", "2", "3"))
    assert torch.equal(policy.score_all(trace), SnapKV(window=3, kernel=3).score_all(trace))


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("budget", [3, 5, 12, 20, 24])
def test_ada_shares_a_layer_by_its_highest_scores(alpha: float, budget: int) -> None:
    scores = torch.rand(3, 2, TOKENS, generator=torch.Generator().manual_seed(0))
    scores[1, 0] *= 2
    scores[2] = scores[2].round(decimals=1)
    found = Ada(SnapKV(), alpha=alpha).allocate(scores, budget, protected(sinks=1, recents=2))
    free = budget - 3
    for layer, budgets in zip(scores.tolist(), found.tolist(), strict=True):
        ranked = sorted((-layer[h][j], h, j) for h in range(2) for j in range(1, TOKENS - 2))
        own = [sum(h == head for _, h, _ in ranked[: 2 * free]) for head in range(2)]
        real = [(1 - alpha) * each + alpha * free for each in own]
        assert budgets == [3 + each for each in naive_rounded(real, 2 * free)]


def test_ada_shares_what_the_wrapped_policy_gives_each_layer() -> None:
    scores = torch.rand(4, 2, TOKENS, generator=torch.Generator().manual_seed(0))
    inner = PyramidKV(beta=4)
    totals = inner.allocate(scores, 9, NOTHING).sum(dim=1)
    found = Ada(inner, alpha=0).allocate(scores, 9, NOTHING)
    assert torch.equal(found.sum(dim=1), totals)
    assert (found[:, 0] != found[:, 1]).any()


def test_ada_keeps_the_best_of_each_head_within_its_budget(
    make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    policy, trace = Ada(SnapKV(window=2, kernel=1), alpha=0), make_trace(tokens=TOKENS, seed=3)
    scores = policy.score_all(trace.for_policy(policy.needs, ("1", "2", "3")))
    kept = keep(policy, trace, 8, Protection(sinks=1, recents=1))
    budgets = policy.allocate(scores, 8, protected(sinks=1, recents=2)).tolist()
    assert [[len(head) for head in layer] for layer in kept] == budgets
    assert kept == [
        [naive_kept(row, due, sinks=1, recents=2) for row, due in zip(layer, dues, strict=True)]
        for layer, dues in zip(scores.tolist(), budgets, strict=True)
    ]


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
    scores = policy.score_all(trace.for_policy(policy.needs, ("1", "2", "3")))
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
    found = LAVa(alpha=alpha).allocate(shown, 8, protected(sinks=1, recents=2))
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
    assert LAVa(alpha=1).allocate(scores, 9, NOTHING).unique().tolist() == [9]
    spikes = torch.zeros(3, 1, TOKENS)
    spikes[..., 4] = 1.0
    assert LAVa().allocate(spikes, 9, NOTHING).unique().tolist() == [9]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PyramidKV(beta=0.5), r"beta=0.5: expected a number from 1"),
        (lambda: PyramidKV(window=0), r"window=0: expected 1 or more"),
        (lambda: Ada(SnapKV(), alpha=-0.1), r"alpha=-0.1: expected a share from 0 to 1"),
        (lambda: LAVa(alpha=2), r"alpha=2: expected a share from 0 to 1"),
        (lambda: Ada(StreamingLLM()), r"compact positions need equal budgets in all heads"),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], Policy], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
