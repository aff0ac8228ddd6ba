from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch.nn.functional import cosine_similarity

from kvharness import Needs
from kvharness.errors import ModelProblem
from kvharness.similarity import hidden_similarities
from kvharness.trace import Trace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvharness.runtime import Runtime

IDS = range(2, 40)


def test_layers_are_compared_as_transformers_computes_them(
    runtime: Runtime, plain_model: PreTrainedModel
) -> None:
    context, _ = runtime.prefill(IDS, Needs(hidden_similarity=True))
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
        assert layer.similarity == pytest.approx(expected, abs=1e-5)
        assert 0 < expected < 0.999


def test_only_who_asks_sees_it_and_no_hook_is_left(runtime: Runtime) -> None:
    context, _ = runtime.prefill(IDS, Needs(hidden_similarity=True))
    trace = Trace(
        layers=tuple(context.layers.values()), positions=torch.arange(len(IDS)), needs=Needs()
    )
    assert [view.similarity for view in trace.views] == [None, None]
    layers: Any = runtime.model.get_decoder().layers
    assert not any(layer._forward_hooks for layer in layers)
    context, _ = runtime.prefill(IDS, Needs())
    assert [layer.similarity for layer in context.layers.values()] == [None, None]


def test_a_model_without_layers_is_refused() -> None:
    odd = cast("Any", SimpleNamespace(get_decoder=object))
    with (
        pytest.raises(ModelProblem, match="no list of decoder layers"),
        hidden_similarities(odd, wanted=True),
    ):
        pass
