from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness_policies.ada import Ada
from kvharness_policies.lava import LAVa
from kvharness_policies.pyramidkv import PyramidKV
from kvharness_policies.snapkv import SnapKV
from kvharness_policies.streaming_llm import StreamingLLM

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import Policy


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
