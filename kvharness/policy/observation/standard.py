"""The observations that come with the harness, written as anyone would write them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from kvharness.policy.observation.base import Observation, afterwards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor

    from kvharness.policy.observation.drawn import Drawn
    from kvharness.policy.observation.growth import Growth
    from kvharness.policy.observation.reading import AttentionCall, Observer, Reading

T = TypeVar("T")


class _Noting(Generic[T]):
    """Makes its value of each layer as it attends."""

    def __init__(self, note: Callable[[AttentionCall], T]) -> None:
        self._note = note
        self._found: dict[int, T] = {}

    def attended(self, call: AttentionCall) -> None:
        self._found[call.layer] = self._note(call)

    def found(self) -> Mapping[int, T]:
        return self._found


@contextmanager
def _noting(note: Callable[[AttentionCall], T]) -> Iterator[Observer[T]]:
    yield _Noting(note)


@dataclass(frozen=True)
class Queries(Observation["Tensor"]):
    """The last ``count`` queries of the context, post-RoPE: ``[H, w, d]``; all, if it is shorter.

    Between evictions those of the new tokens, the last ``count`` of them.
    """

    grows: ClassVar[bool] = True

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count={self.count}: expected 1 or more queries")

    def observing(self, reading: Reading) -> AbstractContextManager[Observer[Tensor]]:
        del reading
        return _noting(lambda call: call.query[0, :, -self.count :].contiguous())

    def grow(self, before: Tensor | None, growth: Growth) -> Tensor:
        del before
        return growth.query[:, :, -self.count :]

    def evict(self, value: Tensor, index: Tensor) -> Tensor:
        """They are of tokens that were read, whatever stays."""
        del index
        return value


@dataclass(frozen=True)
class ColumnSums(Observation["Tensor"]):
    """The attention each key received, summed over all context queries: float32 ``[H, n]``.

    Between evictions it goes on adding up, and what is evicted takes its sum along.
    """

    grows: ClassVar[bool] = True

    def observing(self, reading: Reading) -> AbstractContextManager[Observer[Tensor]]:
        from kvharness.policy.observation.column_sums import column_sums  # noqa: PLC0415 - torch

        del reading
        return _noting(
            lambda call: column_sums(call.query[0], call.key[0].contiguous(), call.scaling)
        )

    def grow(self, before: Tensor | None, growth: Growth) -> Tensor:
        received = growth.attention.sum(dim=2)
        if before is not None:
            received[..., : before.shape[-1]] += before
        return received

    def sample(self, drawn: Drawn) -> Tensor:
        from kvharness.policy.observation.column_sums import column_sums  # noqa: PLC0415

        return column_sums(drawn.queries, drawn.keys, drawn.scaling, chunk=drawn.chunk)


@dataclass(frozen=True)
class Future(Observation["Tensor"]):
    """The largest attention that any token of the true questions and answers pays to each key.

    float32 ``[H, n]``. Between evictions it stays what it was for the context, and is 0 for tokens
    that came after it.
    """

    future: ClassVar[bool] = True
    grows: ClassVar[bool] = True

    def observing(self, reading: Reading) -> AbstractContextManager[Observer[Tensor]]:
        return afterwards(lambda: reading.ahead().attention)

    def grow(self, before: Tensor | None, growth: Growth) -> Tensor:
        del before
        import torch  # noqa: PLC0415

        group = growth.query.shape[1]
        future = growth.whole.unflatten(0, (-1, group))
        heads, tokens = len(future), future.shape[-1]
        positions = growth.positions.unflatten(0, (-1, heads))[:, :, None]
        known = positions < tokens
        index = torch.where(known, positions, 0).expand(-1, -1, group, -1)
        ahead: Tensor = future.expand(len(index), -1, -1, -1).gather(3, index) * known
        return ahead.flatten(0, 1)


@dataclass(frozen=True)
class HiddenSimilarity(Observation[float]):
    """How little a layer changes the hidden states: mean cosine of those before and after it."""

    @contextmanager
    def observing(self, reading: Reading) -> Iterator[Observer[float]]:
        from kvharness.policy.observation.layer_hooks import hidden_similarities  # noqa: PLC0415

        with hidden_similarities(reading.model) as found, afterwards(lambda: found) as observer:
            yield observer

    def sample(self, drawn: Drawn) -> float:
        return drawn.similarity


@dataclass(frozen=True)
class Boundaries(Observation["Tensor"]):
    """Where sentences and records end in the context's text: bool ``[n]``, at their last token."""

    def observing(self, reading: Reading) -> AbstractContextManager[Observer[Tensor]]:
        from kvharness.policy.observation.sentence_ends import boundaries  # noqa: PLC0415

        def found() -> dict[int, Tensor]:
            ends = boundaries(reading.encoder, reading.context).to(reading.model.device)
            return dict.fromkeys(reading.layers, ends)

        return afterwards(found)

    def sample(self, drawn: Drawn) -> Tensor:
        """Sentences of 1 to 9 tokens."""
        import torch  # noqa: PLC0415

        marked = torch.zeros(drawn.tokens, dtype=torch.bool, device=drawn.keys.device)
        marked[[end for end in range(drawn.tokens) if end % 10 in {0, 3, 9}]] = True
        return marked


@dataclass(frozen=True)
class HiddenStates(Observation["Tensor"]):
    """What a layer's attention is given, ``[n, D]``: as large as its keys or larger."""

    @contextmanager
    def observing(self, reading: Reading) -> Iterator[Observer[Tensor]]:
        from kvharness.policy.observation.layer_hooks import hidden_inputs  # noqa: PLC0415

        with hidden_inputs(reading.model) as found, afterwards(lambda: found) as observer:
            yield observer

    def sample(self, drawn: Drawn) -> Tensor:
        """The values side by side, ``[n, K d]``."""
        return drawn.values.transpose(0, 1).flatten(1).clone()


def last_queries(observed: Mapping[Observation[Any], Any]) -> Tensor | None:
    """Of several counts the most."""
    found = {each.count: value for each, value in observed.items() if isinstance(each, Queries)}
    return found[max(found)] if found else None
