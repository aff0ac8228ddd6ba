from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Future
from kvharness_policies.floor import Floor
from kvharness_policies.full import Full
from kvharness_policies.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.policies.conftest import Keep, MakeTrace, NaiveKept


@pytest.mark.parametrize("budget", [1, 4, 7, 10])
def test_oracle_keeps_what_the_future_attends_to(
    budget: int,
    make_trace: MakeTrace,
    keep: Keep,
    naive_kept: NaiveKept,
    group: Callable[[int], range],
) -> None:
    trace = make_trace(tokens=10)
    kept = keep(Oracle(), trace, budget)
    for index, layer in enumerate(trace.layers):
        future = layer.observed[Future()].tolist()
        for k in range(2):
            scores = [sum(future[h][j] for h in group(k)) for j in range(10)]
            assert kept[index][k] == naive_kept(scores, budget)


def test_only_the_oracle_sees_the_future() -> None:
    assert Oracle().needs == frozenset({Future()})
    assert Full().needs == Floor().needs == frozenset()


def test_oracle_score_is_the_group_mean(make_trace: MakeTrace) -> None:
    view = make_trace(tokens=3).views[0]
    future = torch.tensor([[1.0, 2, 3], [3, 2, 1], [0, 0, 8], [0, 4, 0]])
    expected = torch.tensor([[2.0, 2, 2], [0, 2, 4]])
    assert torch.equal(Oracle().score(replace(view, observed={Future(): future})), expected)


def test_oracle_without_a_future_says_what_to_declare(make_trace: MakeTrace) -> None:
    view = replace(make_trace().views[0], observed={})
    with pytest.raises(ValueError, match=r"declare needs = frozenset\({Future\(\)}\)"):
        Oracle().score(view)
