from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch.nn.functional import cosine_similarity

from kvharness import HiddenSimilarity, HiddenStates
from kvharness.errors import ModelProblem
from kvharness.model.context_reading import prefill
from kvharness.policy.observation.layer_hooks import (
    attention_modules,
    hidden_inputs,
    hidden_similarities,
)
from kvharness.policy.trace import Trace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvharness.model.loaded import Runtime


IDS = range(2, 40)


def test_it_is_what_transformers_gives_to_attention(
    runtime: Runtime, plain_model: PreTrainedModel
) -> None:
    context, _ = prefill(runtime, IDS, frozenset({HiddenStates()}))
    with torch.no_grad():
        states = plain_model(torch.tensor([list(IDS)]), output_hidden_states=True).hidden_states
        layers: Any = plain_model.get_decoder().layers
        expected = [layer.input_layernorm(states[i])[0] for i, layer in enumerate(layers)]
    for layer, hidden in zip(context.layers.values(), expected, strict=True):
        torch.testing.assert_close(layer.observed[HiddenStates()], hidden, atol=1e-5, rtol=1e-4)


def test_only_who_asks_sees_it_and_no_hook_is_left(runtime: Runtime) -> None:
    context, _ = prefill(runtime, IDS, frozenset({HiddenStates()}))
    trace = Trace(layers=tuple(context.layers.values()), positions=torch.arange(len(IDS)))
    blind = trace.for_policy(frozenset(), ())
    assert [view.hidden_states for view in blind.views] == [None, None]
    asking = trace.for_policy(frozenset({HiddenStates()}), ()).views[1].hidden_states
    assert asking is context.layers[1].observed[HiddenStates()]
    assert not any(module._forward_pre_hooks for module in attention_modules(runtime.model))
    context, _ = prefill(runtime, IDS)
    assert [layer.observed for layer in context.layers.values()] == [{}, {}]


@pytest.mark.parametrize("decoder", [SimpleNamespace(), SimpleNamespace(layers=[object()])])
def test_a_model_without_attention_modules_is_refused(decoder: object) -> None:
    odd = cast("Any", SimpleNamespace(get_decoder=lambda: decoder))
    with pytest.raises(ModelProblem, match="no self_attn"), hidden_inputs(odd):
        pass


def test_layers_are_compared_as_transformers_computes_them(
    runtime: Runtime, plain_model: PreTrainedModel
) -> None:
    context, _ = prefill(runtime, IDS, frozenset({HiddenSimilarity()}))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    layers: Any = plain_model.get_decoder().layers
    hooks = [
        layer.register_forward_hook(lambda _m, i, o: seen.append((i[0], o))) for layer in layers
    ]
    with torch.no_grad():
        plain_model(torch.tensor([list(IDS)]))
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(context.layers) == 2
    for (before, after), layer in zip(seen, context.layers.values(), strict=True):
        expected = float(cosine_similarity(before, after, dim=-1).mean())
        assert layer.observed[HiddenSimilarity()] == pytest.approx(expected, abs=1e-5)
        assert 0 < expected < 0.999


def test_only_who_asks_compares_layers_and_no_hook_is_left(runtime: Runtime) -> None:
    context, _ = prefill(runtime, IDS, frozenset({HiddenSimilarity()}))
    trace = Trace(layers=tuple(context.layers.values()), positions=torch.arange(len(IDS)))
    blind = trace.for_policy(frozenset(), ())
    assert [view.similarity for view in blind.views] == [None, None]
    assert trace.views[1].similarity == context.layers[1].observed[HiddenSimilarity()]
    layers: Any = runtime.model.get_decoder().layers
    assert not any(layer._forward_hooks for layer in layers)
    context, _ = prefill(runtime, IDS)
    assert [layer.observed for layer in context.layers.values()] == [{}, {}]


def test_a_model_without_layers_is_refused() -> None:
    odd = cast("Any", SimpleNamespace(get_decoder=object))
    with (
        pytest.raises(ModelProblem, match="no list of decoder layers"),
        hidden_similarities(odd),
    ):
        pass
