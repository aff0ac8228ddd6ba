from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import torch

from kvharness_policies.random import Random
from tests.policies.test_uniform import scores_of

if TYPE_CHECKING:
    from tests.policies.conftest import Keep, MakeTrace


def test_random_differs_between_layers_and_heads(make_trace: MakeTrace) -> None:
    rows = scores_of(Random(), make_trace, "0").flatten(0, 1)
    assert len(rows) == 6
    assert not any(torch.equal(a, b) for a, b in combinations(rows, 2))


def test_every_token_is_as_likely_as_any_other(make_trace: MakeTrace, keep: Keep) -> None:
    trace = make_trace(layers=500)
    counts = [0] * 10
    for layer in keep(Random(), trace, 3):
        for head in layer:
            for j in head:
                counts[j] += 1
    # 1000 draws at p = 0.3: the standard deviation is 14.5.
    assert all(abs(count - 300) < 5 * 14.5 for count in counts)
