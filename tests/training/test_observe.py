from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness.model.context_reading import prefill
from kvharness.training.observe import observe_window
from kvharness.training.window import Window

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvharness.model.loaded import Runtime

CONTEXT, AHEAD = 30, 7


@pytest.fixture
def window() -> Window:
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, 1500, (CONTEXT + AHEAD,), generator=rng).tolist()
    return Window(passage="d#0", tokens=tuple(tokens), head=0, context=CONTEXT, held_out=False)


def test_attention_is_that_of_the_model(
    runtime: Runtime, plain_model: PreTrainedModel, window: Window
) -> None:
    plain_model.set_attn_implementation("eager")
    with torch.no_grad():
        output = plain_model(torch.tensor([window.tokens]), output_attentions=True)
    for layer, weights in zip(observe_window(runtime, window), output.attentions, strict=True):
        # Query heads 2k and 2k + 1 read KV head k.
        mean = weights[0].view(2, 2, CONTEXT + AHEAD, CONTEXT + AHEAD).mean(dim=1)
        assert torch.allclose(layer.future, mean[:, CONTEXT:, :CONTEXT], atol=1e-5)
        for token in range(CONTEXT):
            received = mean[:, token:CONTEXT, token].mean(dim=1)
            assert torch.allclose(layer.prefill[:, token], received, atol=1e-5)


def test_keys_and_values_are_those_of_the_context_alone(runtime: Runtime, window: Window) -> None:
    prefilled, _ = prefill(runtime, window.tokens[:CONTEXT])
    for layer, alone in zip(
        observe_window(runtime, window), prefilled.layers.values(), strict=True
    ):
        assert torch.allclose(layer.keys, alone.keys, atol=1e-5)
        assert torch.allclose(layer.values, alone.values, atol=1e-5)
