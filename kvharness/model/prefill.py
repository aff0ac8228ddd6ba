"""Reading a context once, observed, and then the probes on top of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from kvharness.errors import ModelProblem
from kvharness.model.attention import PrefillReader, reading
from kvharness.model.layer_hooks import hidden_inputs, hidden_similarities
from kvharness.model.out_of_memory import explained
from kvharness.model.prefilled import Prefilled
from kvharness.model.probe_pass import probe
from kvharness.model.sentence_ends import boundaries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.model.loaded import Runtime
    from kvharness.policy.trace import LayerTrace
    from kvharness.policy.view import Needs


def prefill(runtime: Runtime, context: Sequence[int], needs: Needs) -> tuple[Prefilled, float]:
    """One observed forward pass over the context, and its seconds.

    Probes are read after it, in seconds of their own (`Prefilled.probing`).

    Raises:
        ModelProblem: all layers slide over a window, the attention is one that cannot be
            observed, or memory ran out.
    """
    reader = PrefillReader(needs)
    ids = torch.tensor([list(context)], device=runtime.device)
    start = runtime.clock()
    layers = _read(runtime, ids, needs, reader)
    seconds = runtime.clock() - start
    if not layers:
        raise ModelProblem(
            f"every attention layer of {runtime.source.name} slides over a window, so there is "
            f"nothing to compress; choose a model with global attention layers"
        )
    ends = boundaries(runtime.encoder, context) if needs.boundaries else None
    prefilled = Prefilled(
        layers=layers,
        sliding=reader.sliding,
        tokens=len(context),
        boundaries=None if ends is None else ends.to(runtime.device),
    )
    return _probed(runtime, prefilled, context, needs), seconds


def _read(
    runtime: Runtime, ids: torch.Tensor, needs: Needs, reader: PrefillReader
) -> dict[int, LayerTrace]:
    """The compressible layers, by the model's index."""
    positions = torch.arange(ids.shape[1], device=runtime.device)[None]
    with (
        explained(runtime.device, f"reading {ids.shape[1]} tokens"),
        torch.no_grad(),
        reading(reader),
        hidden_similarities(runtime.model, wanted=needs.hidden_similarity) as similarities,
        hidden_inputs(runtime.model, wanted=needs.hidden_states) as hidden,
    ):
        runtime.model.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False)
    return {
        index: replace(layer, similarity=similarities.get(index), hidden_states=hidden.get(index))
        for index, layer in sorted(reader.layers.items())
    }


def _probed(
    runtime: Runtime, prefilled: Prefilled, context: Sequence[int], needs: Needs
) -> Prefilled:
    if not needs.probes:
        return prefilled
    found = {each: probe(runtime, prefilled, context, each) for each in needs.probes}
    layers = {
        index: replace(
            layer, probes={each: read[index] for each, (read, _) in found.items() if read}
        )
        for index, layer in prefilled.layers.items()
    }
    probing = {each: went for each, (_, went) in found.items()}
    return replace(prefilled, layers=layers, probing=probing)
