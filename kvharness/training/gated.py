"""Reading a cached context through gates: eviction that gradients can follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvharness.model.attention import reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from kvharness.policy.observation.reading import AttentionCall

#: Bounds the gradient of the logarithm of a nearly shut gate.
_AJAR = 1e-6


class _GatedReader:
    def __init__(self, context: Prefilled, gates: Tensor | None) -> None:
        self._context = context
        self._gates = gates
        self._index = {layer: number for number, layer in enumerate(sorted(context.layers))}

    def attend(self, call: AttentionCall) -> Tensor:
        query, heads = call.query[0], call.query.shape[1]
        kv_heads, new, size = call.key[0].shape
        source = self._context.sliding.get(call.layer) or self._context.layers[call.layer]
        key = torch.cat((source.keys, call.key[0]), dim=1)
        value = torch.cat((source.values, call.value[0]), dim=1)
        folded = query.reshape(kv_heads, -1, size)
        logits = (folded @ key.transpose(1, 2)).float() * call.scaling
        logits = logits.view(kv_heads, heads // kv_heads, new, -1) + self._mask(call, source.keys)
        if self._gates is not None and call.layer in self._index:
            gates = self._gates[self._index[call.layer]]
            opened = (gates + _AJAR).log().masked_fill(gates == 0, float("-inf"))
            own = opened.new_zeros(kv_heads, new)
            logits = logits + torch.cat((opened, own), dim=1)[:, None, None]
        weights = logits.softmax(dim=-1).to(value.dtype).flatten(1, 2)
        return (weights @ value).view(1, heads, new, -1)

    def _mask(self, call: AttentionCall, before: Tensor) -> Tensor:
        """Additive ``[t, kept + t]``: causal, and within the window of a sliding layer."""
        new, kept = call.key.shape[2], before.shape[1]
        order = torch.arange(-kept, new, device=before.device)
        distance = order[kept:, None] - order[None, :]
        hidden = distance < 0
        if call.window is not None:
            hidden |= distance >= call.window
        return torch.zeros(new, kept + new, device=before.device).masked_fill_(
            hidden, float("-inf")
        )


def read_gated(
    runtime: Runtime, context: Prefilled, tokens: Sequence[int], gates: Tensor | None
) -> Tensor:
    """Logits of tokens that follow a cached context, float32 ``[tokens, vocabulary]``.

    Args:
        runtime: the model; freeze its parameters where only gates are trained.
        context: from `prefill`.
        tokens: ids after the context.
        gates: float32 ``[layers, K, n]`` in [0, 1]: each weighs a context entry in its head's
            softmax, exactly as if it were there so often; 0 and 1 are eviction. None is the full
            cache.
    """
    start, device = context.tokens, runtime.device
    ids = torch.tensor([list(tokens)], device=device)
    positions = torch.arange(start, start + len(tokens), device=device)[None]
    with reading(_GatedReader(context, gates)):
        output = runtime.model(input_ids=ids, position_ids=positions, use_cache=False)
    logits: Tensor = output.logits
    return logits[0].float()
