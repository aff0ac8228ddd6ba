"""Running a press on a recorded prefill as its hooks would, and leaving no trace on the model."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kvharness.discovery.kvpress.kept_set import masked_out, returned
from kvharness.errors import UsageProblem
from kvharness.policy.attention_maps import causal_attention
from kvharness.policy.observation.layer_hooks import attention_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from torch.nn import Module

    from kvharness.policy.trace import Trace
    from kvharness.policy.view import View

#: Of an entry: more than rounding in float64 of any context, less than presses tell apart.
_MARGIN = 1e-3


@dataclass(frozen=True)
class Attention:
    """The attention modules of the compressed layers, and the model's rotary embedding."""

    modules: tuple[Module, ...]
    rotary: Module

    @classmethod
    def of(cls, model: Any) -> Attention:
        """Those of a model of the Llama kind.

        Raises:
            ModelProblem: its layers have no ``self_attn``.
            UsageProblem: it has no rotary embedding that all layers share.
        """
        modules = attention_modules(model)
        kinds = getattr(model.config.get_text_config(), "layer_types", None)
        kinds = kinds or ["full_attention"] * len(modules)
        rotary = getattr(model.get_decoder(), "rotary_emb", None)
        if rotary is None or not hasattr(rotary, "inv_freq"):
            raise UsageProblem(
                f"presses need one rotary embedding for all layers, which {type(model).__name__} "
                f"does not have; choose a model such as Llama, Qwen, Mistral or Phi-3"
            )
        pairs = zip(modules, kinds, strict=True)
        return cls(tuple(m for m, kind in pairs if kind == "full_attention"), rotary)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The modules as presses expect them, and afterwards as they were."""
        before = [_lendable(module) for module in self.modules]
        try:
            for module in self.modules:
                module.rotary_emb = self.rotary
            yield
        finally:
            for module, was in zip(self.modules, before, strict=True):
                _put_back(module, was)


def _lendable(module: Any) -> dict[str, object]:
    """What kvpress would leave on an attention module, where it has been before."""
    names = ("rotary_emb", "masked_key_indices")
    return {name: getattr(module, name) for name in names if hasattr(module, name)}


def _put_back(module: Any, was: dict[str, object]) -> None:
    for name in ("rotary_emb", "masked_key_indices"):
        if name in was:
            setattr(module, name, was[name])
        elif hasattr(module, name):
            delattr(module, name)


class Run:
    """A press on one context, at any budget.

    Args:
        press: its ``compression_ratio`` is set on copies.
        attention: the modules that it is given.
        trace: with hidden states; with all queries where the press wants attention.
    """

    def __init__(self, press: Any, attention: Attention, trace: Trace) -> None:
        self._press = press
        self._attention = attention
        self._trace = trace

    def scores(self, budget: int) -> Tensor:
        """What a press that ranks tokens scores at a budget, float32 ``[layers, K, n]``."""
        return self._each_layer(_ratio(budget, self._trace.tokens), self._scored)

    def _scored(self, press: Any, module: Any, view: View) -> Tensor:
        scores: Tensor = press.score(module, *self._arguments(view))
        return scores[0].float()

    def _compressed(self, press: Any, module: Any, view: View) -> Tensor:
        keys, values = press.compress(module, *self._arguments(view))
        masked = module.masked_key_indices
        if masked is not None:
            return masked_out(masked, (view.kv_heads, view.tokens))
        return returned((view.keys, view.values), (keys[0], values[0]))

    def kept(self, budget: int) -> Tensor:
        """Keep mask, bool ``[layers, K, n]``, of exactly ``budget`` entries a head on average.

        The compression ratio is bisected: the nominal one is not what every press realises.

        Raises:
            UsageProblem: no compression ratio gives that many.
        """
        trace, layers = self._trace, len(self._trace.layers)
        if budget == trace.tokens:
            return torch.ones(layers, trace.kv_heads, trace.tokens, dtype=torch.bool)
        total, few, many = budget * layers * trace.kv_heads, 1.0, 0.0
        ratio, found = _ratio(budget, trace.tokens), {}
        while few - many > 1 / (16 * trace.tokens * layers):
            mask = self._each_layer(ratio, self._compressed)
            found[int(mask.sum())] = mask
            if int(mask.sum()) == total:
                return mask
            few, many = (few, ratio) if int(mask.sum()) > total else (ratio, many)
            ratio = (few + many) / 2
        near = sorted(found, key=lambda count: abs(count - total))[:2]
        raise UsageProblem(
            f"no compression ratio makes the press keep {total} entries, a budget of {budget} a "
            f"head; the nearest are {' and '.join(map(str, sorted(near)))}. It is not compared at "
            f"an unequal budget: choose another --retention or --kv-context"
        )

    def _each_layer(self, ratio: float, ask: Callable[[Any, Any, View], Tensor]) -> Tensor:
        press = copy.deepcopy(self._press)
        press.compression_ratio = ratio
        results = []
        with self._attention.lent():
            for view, module in zip(self._trace.views, self._attention.modules, strict=True):
                module.masked_key_indices = None  # type: ignore[assignment]
                with _drawing_from(view):
                    results.append(ask(press, module, view))
        return torch.stack(results)

    def _arguments(self, view: View) -> tuple[Any, ...]:
        """Hidden states, keys, values, attention and the rest, copied: presses write into them."""
        assert view.hidden_states is not None  # noqa: S101 - the policy needs them
        hidden, keys = view.hidden_states[None].clone(), view.keys[None].clone()
        attention = None
        if view.queries is not None:
            attention = causal_attention(view.queries, view.keys, view.scaling)
            attention = attention[None].to(keys.dtype)
        named = {
            "hidden_states": hidden,
            "position_embeddings": self._attention.rotary(hidden, view.positions[None]),
            "position_ids": view.positions[None].clone(),
            "cache_position": view.positions.clone(),
        }
        return hidden, keys, view.values[None].clone(), attention, named


def _ratio(budget: int, tokens: int) -> float:
    """The nominal ratio, a little lower: ``int(tokens * (1 - ratio))`` rounds down."""
    return max(0.0, 1 - (budget + _MARGIN) / tokens)


@contextmanager
def _drawing_from(view: View) -> Iterator[None]:
    """Presses draw from the global generator; here it continues the view's own, and is put back."""
    devices = [view.keys.device] if view.keys.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(view.rng.initial_seed())
        yield
