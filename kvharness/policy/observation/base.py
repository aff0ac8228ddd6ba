"""Observations: what a policy may see of a context beyond its keys and values, open to anyone.

A class derived from `Observation` says what is noted while a context is read, and what is made of
it. Policies declare instances in their ``needs``; equal ones are made once for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor

    from kvharness.policy.observation.drawn import Drawn
    from kvharness.policy.observation.growth import Growth
    from kvharness.policy.observation.reading import AttentionCall, Reading

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


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

        Without it, the checks that draw cases are left out for policies that declare it.
        """
        raise NotImplementedError(f"{self} has no sample(drawn)")

    @property
    def sampled(self) -> bool:
        """Whether the conformance kit can draw it."""
        return type(self).sample is not Observation.sample


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
