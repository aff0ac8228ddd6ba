from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import ColumnSums, HiddenSimilarity, Protection
from kvharness.engine.select import score_tokens
from kvharness_policies.prefill_attention import PrefillAttention
from kvharness_policies.squeeze import Squeeze, layer_weights
from kvharness_policies.streaming_llm import StreamingLLM

if TYPE_CHECKING:
    from kvharness import Trace
    from tests.policies.conftest import Keep, MakeTrace, NaiveKept


def naive_highest(numbers: list[float]) -> list[bool]:
    """Membership of the highest of the best three groups, over all ways to label."""

    def cost(labels: tuple[int, ...]) -> float:
        total = 0.0
        for label in range(3):
            group = [x for x, mine in zip(numbers, labels, strict=True) if mine == label]
            total += sum((x - sum(group) / len(group)) ** 2 for x in group)
        return total

    best = min(product(range(3), repeat=len(numbers)), key=cost)
    top = best[numbers.index(max(numbers))]
    return [label == top for label in best]


def with_similarities(trace: Trace, *numbers: float) -> Trace:
    pairs = zip(trace.layers, numbers, strict=True)
    return replace(
        trace,
        layers=tuple(
            replace(layer, observed={**layer.observed, HiddenSimilarity(): x}) for layer, x in pairs
        ),
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_group_of_the_most_alike_layers_is_reduced(seed: int) -> None:
    numbers = torch.rand(7, generator=torch.Generator().manual_seed(seed)).tolist()
    alike, weights = naive_highest(numbers), layer_weights(numbers, 0.4)
    assert (weights == 0.4).tolist() == alike
    assert float(weights.mean()) == pytest.approx(1)
    assert weights[~torch.tensor(alike)].unique().numel() == 1


@pytest.mark.parametrize(
    ("numbers", "weights"),
    [
        ([0.5], [1.0]),
        ([0.5, 0.5, 0.5, 0.5], [1.0] * 4),
        ([0.5, 0.9], [1.5, 0.5]),
        ([0.9, 0.1, 0.5], [0.5, 1.25, 1.25]),
        ([0.9, 0.1, 0.9, 0.1], [0.5, 1.5, 0.5, 1.5]),
    ],
)
def test_few_values_are_groups_of_their_own(numbers: list[float], weights: list[float]) -> None:
    assert layer_weights(numbers, 0.5).tolist() == weights


def test_layers_keep_their_share_of_the_wrapped_policys_best(
    make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    trace = with_similarities(make_trace(tokens=12, layers=3), 0.2, 0.9, 0.3)
    policy, inner = Squeeze(PrefillAttention()), PrefillAttention()
    assert policy.needs == frozenset({ColumnSums(), HiddenSimilarity()})
    kept = keep(policy, trace, 7, Protection(sinks=1, recents=2))
    scores = score_tokens(inner, trace, name="tested").tolist()
    # 4 entries a head beyond the protected: 5, 2 and 5.
    assert kept == [
        [naive_kept(row, due, sinks=1, recents=2) for row in rows]
        for rows, due in zip(scores, (8, 5, 8), strict=True)
    ]


def test_mistakes_are_refused(make_trace: MakeTrace, keep: Keep) -> None:
    with pytest.raises(ValueError, match=r"reduced=1.5: expected a share from 0 to 1"):
        Squeeze(PrefillAttention(), reduced=1.5)
    with pytest.raises(ValueError, match="compact positions need equal budgets"):
        Squeeze(StreamingLLM())
    with pytest.raises(ValueError, match=r"declare needs = frozenset\({HiddenSimilarity\(\)}\)"):
        keep(Squeeze(PrefillAttention()), make_trace(), 5)
