"""Probes: tokens read after the whole context for the queries they make, and then forgotten.

Policies that declare equal ones in their needs share its forward pass.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

from kvharness.policy.observation.base import Observation, afterwards
from kvharness.policy.observation.part import Part, Probed

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from kvharness.policy.observation.reading import Observer, Reading
    from kvharness.pretrained.prompt import Encoder

_REPEAT_ALL = "Repeat the previous context exactly."
_REPEAT_PART = "Repeat the part of the previous context exactly, starting with "


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """All that a probe is made of.

    Attributes:
        context: ids of what was prefilled: with the question only where the contract shows it to
            every policy, and never with an answer.
        encoder: of text.
        vocabulary: how many ids there are.
    """

    context: tuple[int, ...]
    encoder: Encoder
    vocabulary: int


@dataclass(frozen=True, kw_only=True)
class Probe(Observation["tuple[Probed, ...]"]):
    """Tokens on top of the full cache: what each layer makes of each of its parts.

    Each part sees the context and itself, never another part. Its tokens have the positions that
    follow the context's last, plus ``offset``; one below minus the context's length begins at
    position 0. What a token sees does not depend on its position.
    """

    offset: int = 0

    @abstractmethod
    def parts(self, material: Material) -> list[Part]:
        """What to read, one part after the other."""

    def start(self, tokens: int) -> int:
        """Position of the first token of a part after a context of so many."""
        return max(0, tokens + self.offset)

    def observing(self, reading: Reading) -> AbstractContextManager[Observer[tuple[Probed, ...]]]:
        def found() -> dict[int, tuple[Probed, ...]]:
            material = Material(
                context=reading.context, encoder=reading.encoder, vocabulary=reading.vocabulary
            )
            return reading.after(self.parts(material), self.start(len(reading.context)))

        return afterwards(found)


@dataclass(frozen=True, kw_only=True)
class Ends(Probe):
    """The context's first ``prefix`` tokens and its last ``suffix``; of a short context, all."""

    prefix: int
    suffix: int

    def __post_init__(self) -> None:
        if min(self.prefix, self.suffix) < 0 or self.prefix + self.suffix < 1:
            raise ValueError(
                f"prefix={self.prefix}, suffix={self.suffix}: expected 0 or more tokens each, and "
                f"1 or more together"
            )

    def parts(self, material: Material) -> list[Part]:
        context = material.context
        rest = context[self.prefix :]
        ids = context[: self.prefix] + rest[max(0, len(rest) - self.suffix) :]
        return [Part(ids=ids, first=0, last=len(context))]


@dataclass(frozen=True, kw_only=True)
class RandomTokens(Probe):
    """``count`` ids drawn evenly from the vocabulary, special ones too; fixed by the context."""

    count: int

    def __post_init__(self) -> None:
        _expect_count(self.count)

    def parts(self, material: Material) -> list[Part]:
        import torch  # noqa: PLC0415 - policies are listed without it

        from kvharness.policy.seeds import generator  # noqa: PLC0415

        words = generator("probe", *map(str, material.context))
        ids = torch.randint(material.vocabulary, (self.count,), generator=words)
        return [Part(ids=tuple(ids.tolist()), first=0, last=len(material.context))]


@dataclass(frozen=True, kw_only=True)
class Text(Probe):
    """The first ``count`` tokens of a text, which starts again where it is too short."""

    text: str
    count: int

    def __post_init__(self) -> None:
        _expect_count(self.count)
        if not self.text:
            raise ValueError("text='': expected some text to read")

    def parts(self, material: Material) -> list[Part]:
        ids = islice(cycle(material.encoder.ids(self.text)), self.count)
        return [Part(ids=tuple(ids), first=0, last=len(material.context))]


@dataclass(frozen=True, kw_only=True)
class Repeat(Probe):
    """A request to repeat the context, and the context: KVzip's (arXiv 2505.23416), in chunks.

    A part is the request, the opening of the reply, and the ``chunk`` tokens that it is about. The
    second and later requests name the ``cue`` tokens before their chunk. The context's first
    ``skip`` tokens are not repeated.
    """

    chunk: int = 2000
    skip: int = 0
    cue: int = 8

    def __post_init__(self) -> None:
        if self.chunk < 1 or min(self.skip, self.cue) < 0:
            raise ValueError(
                f"chunk={self.chunk}, skip={self.skip}, cue={self.cue}: expected 1 or more tokens "
                f"in a chunk, and 0 or more of the others"
            )

    def parts(self, material: Material) -> list[Part]:
        starts = range(self.skip, len(material.context), self.chunk)
        return [self._part(material, first) for first in starts]

    def _part(self, material: Material, first: int) -> Part:
        context, encoder = material.context, material.encoder
        last = min(first + self.chunk, len(context))
        request = encoder.question(_REPEAT_ALL)
        if first > self.skip:
            cue = context[max(self.skip, first - self.cue) : first]
            request = (*encoder.question(_REPEAT_PART), *cue)
        ids = (*request, *encoder.tail(""), *context[first:last])
        return Part(ids=ids, first=first, last=last)


def _expect_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"count={count}: expected 1 or more tokens")
