"""Observations: what a policy may see of a context beyond its keys and values, open to anyone.

A class derived from `Observation` says what is noted while a context is read, and what is made of
it. Policies declare instances in their ``needs``; equal ones are made once for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from kvharness.policy.observation.drawn import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor

    from kvharness.policy.observation.drawn import Drawn
    from kvharness.policy.observation.growth import Growth
    from kvharness.policy.observation.reading import AttentionCall, Observer, Reading

T = TypeVar("T")


class Observation(ABC, Generic[T]):
    """Something that can be seen of a context, one value for each compressed layer.

    Make it a frozen dataclass: its fields are what to look at, and equal observations are the same
    one. What it makes of a layer is ``view[observation]`` for the policies that declare it.

    Attributes:
        future: whether it knows the true questions and answers. A policy that declares it is an
            oracle: a control, and never ranked.
        grows: whether it is there between evictions too, while decoding and in blocks (`grow`).
    """

    future: ClassVar[bool] = False
    grows: ClassVar[bool] = False

    @abstractmethod
    def observing(self, reading: Reading) -> AbstractContextManager[Observer[T]]:
        """Entered before the context is read, and left after it.

        The time that `Observer.found` takes counts as selecting, for policies that declare this.
        """

    def grow(self, before: Tensor | None, growth: Growth) -> Tensor:
        """What is known of a layer's entries after new tokens were read: ``[R, G, ...]``.

        Only asked of observations with ``grows``, whose values are tensors ``[H, ...]``.

        Args:
            before: what it was before the new tokens; None in a cache that begins empty.
            growth: what the new tokens did.
        """
        raise NotImplementedError(
            "it says that it grows, so it must implement grow(before, growth)"
        )

    def evict(self, value: Tensor, index: Tensor) -> Tensor:
        """What is left of ``[R, G, ..., m]`` for the entries int64 ``[R, k]`` that stay.

        By default the last dimension counts entries.
        """
        places = index.view(len(index), *[1] * (value.dim() - 2), -1)
        return value.gather(-1, places.expand(*value.shape[:-1], index.shape[1]))

    def sample(self, drawn: Drawn) -> T:
        """What it would make of a layer of numbers, for the conformance kit; copies, never views.

        By default it is shown a reading of this one layer: it attends, ids may be read after it,
        and the future is known. What looks at the model itself has to say what it would see;
        otherwise the checks that draw cases are left out for policies that declare it.
        """
        return shown(self.observing, drawn)


#: What a policy declares.
Observations = frozenset[Observation[Any]]


class Afterwards(Generic[T]):
    """An observer that needs nothing of the pass itself."""

    def __init__(self, found: Callable[[], Mapping[int, T]]) -> None:
        self.found = found

    def attended(self, call: AttentionCall) -> None:
        """Nothing is noted."""


@contextmanager
def afterwards(found: Callable[[], Mapping[int, T]]) -> Iterator[Observer[T]]:
    """An observation that is made when the pass is over, as probes are."""
    yield Afterwards(found)
