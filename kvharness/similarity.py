"""How little each decoder layer changes the hidden states: one number a layer, seen in prefill."""

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

    Hook = Callable[[Module, tuple[Any, ...], dict[str, Any], Any], None]


@contextmanager
def hidden_similarities(model: PreTrainedModel, *, wanted: bool) -> Iterator[dict[int, float]]:
    """Fill a dict from layer index to the mean cosine over tokens, during one forward pass.

    Nothing is hooked unless ``wanted``.

    Raises:
        ModelProblem: the model has no list of decoder layers.
    """
    found: dict[int, float] = {}
    layers: Any = getattr(model.get_decoder(), "layers", None) if wanted else ()
    if layers is None:
        raise ModelProblem(
            f"{type(model).__name__} has no list of decoder layers, so their hidden states cannot "
            f"be compared; policies that need them cannot run on it"
        )
    with ExitStack() as hooks:
        for index, layer in enumerate(layers):
            hook = layer.register_forward_hook(_hook(found, index), with_kwargs=True)
            hooks.enter_context(hook)
        yield found


def _hook(found: dict[int, float], index: int) -> Hook:
    def note(_: Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        before: Tensor = given[0] if given else named["hidden_states"]
        after: Tensor = output[0] if isinstance(output, tuple) else output
        found[index] = float(cosine_similarity(before.float(), after.float(), dim=-1).mean())

    return note
