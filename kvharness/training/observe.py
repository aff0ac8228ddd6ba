"""What a context held and what its real continuation attended to: the data of a learned scorer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness.model.attention import causal_output, reading
from kvharness.model.out_of_memory import explained
from kvharness.policy.attention_maps import causal_attention, group_mean
from kvharness.policy.observation.column_sums import column_sums

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.model.loaded import Runtime
    from kvharness.policy.observation.reading import AttentionCall
    from kvharness.training.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLayer:
    """One compressible layer of a window.

    Shapes: ``K`` KV heads, ``n`` context tokens, ``a`` tokens of the continuation, ``d`` head size.

    Attributes:
        keys: ``[K, n, d]``, post-RoPE, in the model's dtype.
        values: ``[K, n, d]``.
        prefill: float32 ``[K, n]``, mean attention that a token received from the context
            tokens that see it; mean over the query heads of a group.
        future: float32 ``[K, a, n]``, attention of each continuation token on the context;
            rows do not sum to 1, since the continuation attends to itself as well.
    """

    keys: Tensor
    values: Tensor
    prefill: Tensor
    future: Tensor


class _WindowReader:
    def __init__(self, context: int) -> None:
        self.context = context
        self.layers: dict[int, WindowLayer] = {}

    def attend(self, call: AttentionCall) -> Tensor:
        if call.window is None:
            self.layers[call.layer] = self._observe(call)
        return causal_output(call)

    def _observe(self, call: AttentionCall) -> WindowLayer:
        n, query, key = self.context, call.query[0], call.key[0]
        kv_heads = key.shape[0]
        sums = column_sums(query[:, :n], key[:, :n].contiguous(), call.scaling)
        seen_by = torch.arange(n, 0, -1, device=sums.device)
        ahead = causal_attention(query[:, n:], key, call.scaling)[..., :n]
        return WindowLayer(
            keys=key[:, :n].contiguous(),
            values=call.value[0, :, :n].contiguous(),
            prefill=group_mean(sums / seen_by, kv_heads),
            future=group_mean(ahead, kv_heads),
        )


def observe_window(runtime: Runtime, window: Window) -> list[WindowLayer]:
    """One forward pass over context and continuation: its compressible layers in order.

    Raises:
        ModelProblem: the window does not fit into memory.
    """
    reader = _WindowReader(window.context)
    ids = torch.tensor([window.tokens], device=runtime.device)
    positions = torch.arange(len(window.tokens), device=runtime.device)[None]
    doing = f"reading {len(window.tokens)} tokens"
    with explained(runtime.device, doing), torch.no_grad(), reading(reader):
        runtime.model.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False)
    return [reader.layers[index] for index in sorted(reader.layers)]
