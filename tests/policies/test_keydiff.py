from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness_policies.keydiff import KeyDiff
from kvharness_policies.knorm import Knorm

if TYPE_CHECKING:
    from tests.policies.conftest import MakeTrace


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999))
def test_keydiff_orders_by_the_summed_pairwise_cosine(make_trace: MakeTrace, seed: int) -> None:
    view = make_trace(tokens=8, layers=1, seed=seed).views[0]
    units = torch.nn.functional.normalize(view.keys.double(), dim=-1)
    summed = (units @ units.transpose(1, 2)).sum(dim=-1)
    lengths = units.mean(dim=1).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(
        KeyDiff().score(view).double() * lengths, -summed / 8, atol=1e-6, rtol=0
    )


@settings(max_examples=50, deadline=None)
@given(factor=st.floats(0.125, 64))
def test_keydiff_ignores_the_length_of_keys_and_knorm_follows_it(
    make_trace: MakeTrace, factor: float
) -> None:
    view = make_trace(layers=1).views[0]
    scaled = replace(view, keys=view.keys * factor)
    torch.testing.assert_close(KeyDiff().score(scaled), KeyDiff().score(view))
    torch.testing.assert_close(Knorm().score(scaled), Knorm().score(view) * factor)
