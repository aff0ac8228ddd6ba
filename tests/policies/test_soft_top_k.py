from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness_policies.lkv.soft_top_k import soft_top_k


@settings(max_examples=60)
@given(data=st.data())
def test_gates_add_up_to_k(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 40))
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scores = torch.randn(3, count, generator=rng, dtype=torch.float64) * 3
    k = torch.rand(3, generator=rng, dtype=torch.float64) * (count - 0.2) + 0.1
    temperature = data.draw(st.sampled_from([0.05, 0.3, 1.0]))
    gates = soft_top_k(scores, k, temperature)
    assert gates.sum(dim=-1).tolist() == pytest.approx(k.tolist(), rel=1e-4)
    assert bool(((gates >= 0) & (gates <= 1)).all())


def test_gates_follow_the_scores() -> None:
    gates = soft_top_k(torch.tensor([3.0, 1.0, 2.0]), torch.tensor(1.5), 0.5)
    assert gates.argsort(descending=True).tolist() == [0, 2, 1]


def test_more_to_keep_opens_every_gate() -> None:
    scores = torch.randn(20, generator=torch.Generator().manual_seed(0))
    few, many = (soft_top_k(scores, torch.tensor(k), 0.5) for k in (4.0, 9.0))
    assert bool((many > few).all())


def test_a_cold_gate_is_a_hard_top_k() -> None:
    scores = torch.arange(10.0)
    gates = soft_top_k(scores, torch.tensor(4.0), 0.01)
    assert gates.round().tolist() == [0] * 6 + [1] * 4


@pytest.mark.parametrize(("k", "gate"), [(0.0, 0.0), (6.0, 1.0)])
def test_nothing_and_everything(k: float, gate: float) -> None:
    scores = torch.arange(6.0, requires_grad=True)
    gates = soft_top_k(scores, torch.tensor(k), 0.2)
    assert gates.tolist() == pytest.approx([gate] * 6, abs=1e-4)
    gates.sum().backward()
    assert bool(scores.grad.isfinite().all())  # type: ignore[union-attr]


def test_derivatives_are_exact() -> None:
    rng = torch.Generator().manual_seed(1)
    scores = torch.randn(2, 7, generator=rng, dtype=torch.float64, requires_grad=True)
    k = torch.tensor([2.5, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, many: soft_top_k(s, many, 0.7), (scores, k))
