"""A context that is being read, as an observation sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.policy.observation.part import Part, Probed
    from kvharness.pretrained.prompt import Encoder

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """One layer's new tokens: query ``[B, H, t, d]``, key and value ``[B, K, t, d]``, post-RoPE.

    Attributes:
        layer: index in the model.
        scaling: the factor on query-key products.
        window: of a layer that attends to its last tokens only; None in those that are compressed.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    window: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What follows the context in truth; only observations with ``future`` may ask for it.

    Attributes:
        prompts: ids of each question with its reference answer, asked independently.
        attention: by layer of the model, float32 ``[H, n]``, the largest attention that any of
            these tokens pays to each token of the context.
    """

    prompts: tuple[tuple[int, ...], ...]
    attention: Mapping[int, Tensor]


class Reading(Protocol):
    """A context that is being read; the harness makes it.

    `after`, `again` and `ahead` are there once the pass is over, in `Observer.found`.
    """

    @property
    def context(self) -> tuple[int, ...]:
        """Ids of what is read: with the question only if the contract shows it to every policy."""
        ...

    @property
    def encoder(self) -> Encoder:
        """Of text, and back."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        ...

    @property
    def model(self) -> PreTrainedModel:
        """For hooks during the pass; leave it as it is."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of the model that are compressed, known once the pass is over."""
        ...

    def after(self, parts: Sequence[Part], start: int) -> dict[int, tuple[Probed, ...]]:
        """Read tokens on top of the full cache and forget them; what each layer made of them.

        Args:
            parts: read one after the other; each sees the context and itself.
            start: position of the first token of each.

        Raises:
            ModelProblem: they do not fit the model's window, or memory.
        """
        ...

    def again(
        self, through: Callable[[AttentionCall], AttentionCall], *, logits: int = 1
    ) -> Tensor:
        """Read the context once more, with gradients: for what autograd can tell of it.

        Weights need no gradient meanwhile, so that a graph begins where ``through`` lets it.

        Args:
            through: is given the call of each compressed layer; what it returns is computed with.
            logits: of how many last tokens.

        Returns:
            Logits ``[logits, vocabulary]`` in the model's dtype, the last row for what follows the
            context.

        Raises:
            ModelProblem: memory ran out.
        """
        ...

    def ahead(self) -> Ahead:
        """What follows in truth.

        Raises:
            ModelProblem: the observation does not declare ``future``, or nobody asks anything.
        """
        ...


class Observer(Protocol[T_co]):
    """Notes what it is shown of one pass over a context."""

    def attended(self, call: AttentionCall) -> None:
        """A compressed layer attends, with ``B = 1``; the tensors are the model's: leave them."""
        ...

    def found(self) -> Mapping[int, T_co]:
        """What it made of each compressed layer, by the model's index, after the pass.

        Called with gradients allowed; detach what needs them no longer.
        """
        ...
