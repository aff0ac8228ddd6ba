"""Learned budgets and scores: exact totals, the control, and what wraps what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import LoadedModel, Queries
from kvharness.model.context_reading import prefill
from kvharness_policies.lkv.network import Network, Shape
from kvharness_policies.lkv.policy import LKV, LKVBudgets, head_budgets
from kvharness_policies.lkv.training import gates_of
from kvharness_policies.snapkv import SnapKV
from kvharness_policies.streaming_llm import StreamingLLM
from tests.policies.conftest import choice_of

if TYPE_CHECKING:
    from kvharness.model.loaded import Runtime

SHAPE = Shape(layers=2, kv_heads=2, head_size=16)
TOKENS = 60


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    made = Network(SHAPE)
    torch.nn.init.normal_(made.rank.weight)
    return made.eval()


@pytest.fixture
def model(runtime: Runtime) -> LoadedModel:
    return LoadedModel(source=runtime.source, module=runtime.model)


def test_untrained_budgets_are_uniform() -> None:
    shares = Network(SHAPE).shares(0.3)
    assert torch.allclose(shares, torch.full((2, 2), 0.3), atol=1e-4)


def test_gates_add_up_to_the_retention(network: Network, runtime: Runtime) -> None:
    context, _ = prefill(runtime, range(2, 2 + TOKENS))
    for retention in (0.4, 0.5, 0.9):
        gates = gates_of(network, context, retention=retention, temperature=0.3)
        assert gates.shape == (2, 2, TOKENS)
        assert float(gates.detach().mean()) == pytest.approx(retention, abs=1e-3)
        assert bool((gates[..., :4] == 1).all())
        assert bool((gates[..., -16:] == 1).all())


@pytest.mark.parametrize("how", ["learned", "uniform", "shuffled"])
def test_budgets_are_exact(network: Network, how: str) -> None:
    protected = torch.zeros(TOKENS, dtype=torch.bool)
    protected[:4] = protected[-6:] = True
    scores = torch.zeros(2, 2, TOKENS)
    for budget in (10, 17, 41, TOKENS):
        found = head_budgets(network, how, choice_of(scores, budget, protected))
        assert int(found.sum()) == budget * 4
        assert int(found.min()) >= 10
    learned, shuffled = (
        head_budgets(network, kind, choice_of(scores, 30, protected))
        for kind in ("learned", "shuffled")
    )
    assert learned.flatten().sort().values.tolist() == shuffled.flatten().sort().values.tolist()
    assert learned.unique().numel() > 1


def test_layers_are_scored_alike_alone_and_together(network: Network) -> None:
    keys, values = torch.randn(2, 2, 2, TOKENS, 16)
    together = network.scores(keys, values)
    for layer in range(2):
        alone = network.layer_scores(layer, keys[layer], values[layer])
        assert torch.allclose(alone, together[layer], atol=1e-5)


def test_a_wrapper_changes_the_budgets_and_nothing_else(model: LoadedModel) -> None:
    wrapped = LKVBudgets(SnapKV(window=5), weights="random").ready(model, 0)
    assert wrapped.needs == frozenset({Queries(5)})
    assert wrapped.protect(TOKENS, 20) == SnapKV(window=5).protect(TOKENS, 20)
    assert wrapped.capabilities.head_wise
    assert wrapped.checkpoint(model.source, 0) == "random"


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="budgets='most': expected one of learned, uniform"):
        LKV(budgets="most")
    with pytest.raises(ValueError, match="compact positions need equal budgets"):
        LKVBudgets(StreamingLLM())
