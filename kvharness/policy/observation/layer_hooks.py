"""Hidden states of each layer, and how little it changes them; seen in prefill if asked for."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch.nn.functional import cosine_similarity

from kvharness.errors import ModelProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

    Hook = Callable[[Module, tuple[Any, ...], dict[str, Any]], None]
    OutputHook = Callable[[Module, tuple[Any, ...], dict[str, Any], Any], None]


@contextmanager
def hidden_inputs(model: PreTrainedModel) -> Iterator[dict[int, Tensor]]:
    """Fill a dict from layer index to ``[n, D]``, after the layer's norm, in one forward pass.

    Raises:
        ModelProblem: the model's layers keep their attention elsewhere than in ``self_attn``.
    """
    found: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for index, module in enumerate(attention_modules(model)):
            hook = module.register_forward_pre_hook(_hook(found, index), with_kwargs=True)
            hooks.enter_context(hook)
        yield found


def attention_modules(model: PreTrainedModel) -> list[Module]:
    """The attention module of each decoder layer.

    Raises:
        ModelProblem: there is none.
    """
    layers: Any = getattr(model.get_decoder(), "layers", None) or ()
    modules: list[Any] = [getattr(layer, "self_attn", None) for layer in layers]
    if not modules or None in modules:
        raise ModelProblem(
            f"{type(model).__name__} has no self_attn in its layers, so what enters attention "
            f"cannot be seen; policies that need it run on models of the Llama kind"
        )
    return modules


def _hook(found: dict[int, Tensor], index: int) -> Hook:
    def note(_: Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden: Tensor = given[0] if given else named["hidden_states"]
        found[index] = hidden[0]

    return note


@contextmanager
def hidden_similarities(model: PreTrainedModel) -> Iterator[dict[int, float]]:
    """Fill a dict from layer index to the mean cosine over tokens, during one forward pass.

    Raises:
        ModelProblem: the model has no list of decoder layers.
    """
    found: dict[int, float] = {}
    layers: Any = getattr(model.get_decoder(), "layers", None)
    if layers is None:
        raise ModelProblem(
            f"{type(model).__name__} has no list of decoder layers, so their hidden states cannot "
            f"be compared; policies that need them cannot run on it"
        )
    with ExitStack() as hooks:
        for index, layer in enumerate(layers):
            hook = layer.register_forward_hook(_comparing(found, index), with_kwargs=True)
            hooks.enter_context(hook)
        yield found


def _comparing(found: dict[int, float], index: int) -> OutputHook:
    def note(_: Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        before: Tensor = given[0] if given else named["hidden_states"]
        after: Tensor = output[0] if isinstance(output, tuple) else output
        found[index] = float(cosine_similarity(before.float(), after.float(), dim=-1).mean())

    return note
