"""The one adapter onto transformers: an attention function that lets the harness read and supply.

Every architecture hands q, k and v to its attention function after rotation and QK-norm, so
there is no per-model code. While a reader is active it decides what each call attends to; the
harness keeps all keys and values itself and uses no cache class of transformers.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from kvharness.errors import ModelProblem
from kvharness.policy.observation.reading import AttentionCall
from kvharness.policy.trace import LayerTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel


KERNEL = "kvharness-sdpa"
#: Attention variants that change the result and that the harness does not reproduce.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")
#: Layers whose whole state is in their keys and values, over everything or over a window.
_LAYER_TYPES = {"full_attention", "sliding_attention"}


class Reader(Protocol):
    """Decides what one attention call reads; returns ``[B, H, t, d]``."""

    def attend(self, call: AttentionCall) -> Tensor: ...


_reader: ContextVar[Reader | None] = ContextVar("kvharness_reader", default=None)


@contextmanager
def reading(reader: Reader) -> Iterator[None]:
    """Route every attention call of this thread through ``reader``."""
    token = _reader.set(reader)
    try:
        yield
    finally:
        _reader.reset(token)


def observe(model: PreTrainedModel) -> None:
    """Make ``model`` call the harness for attention.

    Raises:
        ModelProblem: the architecture does not use transformers' attention interface.
    """
    config = model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES
    if others:
        raise ModelProblem(_not_observable(model, f"it has {min(others)} layers"))
    register_kernel()
    try:
        model.set_attn_implementation(KERNEL)
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelProblem(_not_observable(model, str(error))) from None
    if config._attn_implementation != KERNEL:  # noqa: SLF001
        raise ModelProblem(_not_observable(model, "it keeps its own attention"))


def register_kernel() -> None:
    """Make transformers know our attention, also where another library has wrapped it since."""
    AttentionInterface.register(KERNEL, _attention)
    # A wrapper is set in the table itself, where it hides what is registered.
    ALL_ATTENTION_FUNCTIONS[KERNEL] = _attention


def _not_observable(model: PreTrainedModel, reason: str) -> str:
    return (
        f"{type(model).__name__} cannot be observed: {reason.splitlines()[0]}. kvharness needs an "
        f"architecture that uses transformers' attention interface (Llama, Qwen, Gemma, ...)"
    )


def _attention(  # noqa: PLR0913, PLR0917 - the signature is transformers'
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - a reader makes its own
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    reader = _reader.get()
    if reader is None:
        msg = (
            "this model is prepared for kvharness: call it within "
            "kvharness.model.attention.reading()"
        )
        raise RuntimeError(msg)
    given = [name for name in _UNSUPPORTED if kwargs.get(name) is not None]
    if given:
        name = type(module).__name__
        raise ModelProblem(f"{name} uses {given[0]} in attention, which kvharness cannot reproduce")
    call = AttentionCall(
        layer=int(module.layer_idx),  # type: ignore[arg-type]
        query=query,
        key=key,
        value=value,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
    )
    return reader.attend(call).transpose(1, 2).contiguous(), None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingTrace:
    """A layer that attends to its last ``window`` tokens only: kept whole, never compressed."""

    keys: Tensor
    values: Tensor
    window: int


class PrefillReader:
    """Causal attention over one context, keeping K and V.

    Args:
        watches: are shown each call of a compressed layer.
    """

    def __init__(self, watches: Sequence[Callable[[AttentionCall], None]] = ()) -> None:
        self._watches = tuple(watches)
        self.layers: dict[int, LayerTrace] = {}
        self.sliding: dict[int, SlidingTrace] = {}

    def attend(self, call: AttentionCall) -> Tensor:
        if call.layer in self.layers or call.layer in self.sliding:
            raise ModelProblem(
                f"layer {call.layer} attends twice in a pass, which kvharness cannot evict for"
            )
        if call.window is None:
            for watch in self._watches:
                watch(call)
            self.layers[call.layer] = LayerTrace(
                keys=call.key[0].contiguous(),
                values=call.value[0].contiguous(),
                scaling=call.scaling,
            )
        else:
            self.sliding[call.layer] = SlidingTrace(
                keys=call.key[0, :, -call.window :].contiguous(),
                values=call.value[0, :, -call.window :].contiguous(),
                window=call.window,
            )
        return causal_output(call)


def causal_output(call: AttentionCall) -> Tensor:
    """Plain causal attention, within the window of a sliding layer."""
    tokens = call.query.shape[2]
    if call.window is None or tokens <= call.window:
        return scaled_dot_product_attention(
            call.query, call.key, call.value, is_causal=True, scale=call.scaling, enable_gqa=True
        )
    order = torch.arange(tokens, device=call.query.device)
    distance = order[:, None] - order[None, :]
    mask = (distance >= 0) & (distance < call.window)
    group = call.query.shape[1] // call.key.shape[1]
    # With a mask and enable_gqa, SDPA takes the slow reference path: repeat the heads instead.
    return scaled_dot_product_attention(
        call.query,
        call.key.repeat_interleave(group, dim=1),
        call.value.repeat_interleave(group, dim=1),
        attn_mask=mask,
        scale=call.scaling,
    )
