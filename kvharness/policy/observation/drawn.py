"""One layer of a case that the conformance kit draws, and how an observation is shown it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

from kvharness.policy.observation.part import Part, Probed
from kvharness.policy.observation.reading import Ahead, AttentionCall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor

    from kvharness.policy.observation.reading import Observer, Reading
    from kvharness.pretrained.prompt import Encoder

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One layer of a case that the conformance kit draws; letters as in `View`.

    Attributes:
        queries: ``[H, n, d]``, of all tokens.
        keys, values: ``[K, n, d]``.
        scaling: the factor on query-key products.
        ahead: float32 ``[H, n]``, in place of `Ahead.attention`.
        similarity: from 0 to 1, another one for each layer.
        encoder: of text, whose ids are below 97.
        chunk: queries a step, for sums over all of them.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    scaling: float
    ahead: Tensor
    similarity: float
    encoder: Encoder
    chunk: int

    @property
    def tokens(self) -> int:
        return int(self.keys.shape[1])


class DrawnReading:
    """`Reading` of a layer that is drawn: there is no model, and its index is 0.

    The context's ids count up from 0. Id ``i`` of what is read after it has the queries and keys of
    its token ``i`` modulo ``n``.
    """

    def __init__(self, drawn: Drawn) -> None:
        self._drawn = drawn
        self.context = tuple(range(drawn.tokens))
        self.encoder = drawn.encoder
        self.vocabulary = drawn.tokens
        self.layers = (0,)

    @property
    def model(self) -> NoReturn:
        raise NotImplementedError("it looks at the model")

    def again(self, through: object, *, logits: int = 1) -> NoReturn:
        del through, logits
        raise NotImplementedError("it reads the context again")

    def after(self, parts: Sequence[Part], start: int) -> dict[int, tuple[Probed, ...]]:
        del start
        return {0: tuple(self._probed(part) for part in parts)}

    def _probed(self, part: Part) -> Probed:
        places = [each % self._drawn.tokens for each in part.ids]
        return Probed(
            queries=self._drawn.queries[:, places],
            keys=self._drawn.keys[:, places],
            first=part.first,
            last=part.last,
        )

    def ahead(self) -> Ahead:
        return Ahead(prompts=(), attention={0: self._drawn.ahead.clone()})


def shown(observing: Callable[[Reading], AbstractContextManager[Observer[T]]], drawn: Drawn) -> T:
    """What an observation makes of the layer.

    Raises:
        NotImplementedError: it needs a model.
    """
    with observing(DrawnReading(drawn)) as observer:
        observer.attended(
            AttentionCall(
                layer=0,
                query=drawn.queries.clone()[None],
                key=drawn.keys.clone()[None],
                value=drawn.values.clone()[None],
                scaling=drawn.scaling,
                window=None,
            )
        )
    return observer.found()[0]
