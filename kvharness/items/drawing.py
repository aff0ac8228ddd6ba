"""What the items of one seed are drawn from, and how a document and an item are made of it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.items.compose import Document, TooShort, compose
from kvharness.items.filler import Filler
from kvharness.items.item import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from kvharness.items.compose import Planted
    from kvharness.items.item import Question
    from kvharness.pretrained.prompt import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The items of one seed.

    Attributes:
        encoder: of the model that will read them.
        context: tokens of each, exactly.
        seed: fixes everything; an item does not depend on how many are drawn.
        count: how many.
        haystack: a text file to hide the facts in; None for generated prose.
    """

    encoder: Encoder
    context: int
    seed: int
    count: int
    haystack: Path | None = None

    def rng(self, suite: str, number: int | str = "") -> random.Random:
        """The generator of an item of a suite, or of what its items share."""
        return random.Random(f"kvharness/{suite}/{self.seed}/{number}")

    def each(self, make: Callable[[int], Item]) -> list[Item]:
        """Items 0 to ``count - 1``.

        Raises:
            TooShort: names the length that would do for all of them.
        """
        items: list[Item] = []
        short: list[TooShort] = []
        for number in range(self.count):
            try:
                items.append(make(number))
            except TooShort as problem:
                short.append(problem)
        if short:
            raise max(short, key=lambda problem: problem.least)
        return items

    def document(
        self, rng: random.Random, *, planted: Sequence[Planted], avoid: Iterable[str]
    ) -> Document:
        """Prose of the exact length around what is planted, which says nothing to ``avoid``.

        Raises:
            TooShort: ``context`` cannot hold what is planted.
        """
        filler = Filler(rng, haystack=self.haystack, avoid=list(avoid))
        return compose(self.encoder, filler, context=self.context, planted=planted)

    def item(
        self,
        suite: str,
        number: int,
        *,
        variant: str,
        document: Document,
        questions: Iterable[Question],
    ) -> Item:
        """An item of a document, under the name that tables and records show."""
        return Item(
            suite=suite,
            name=f"{suite}-s{self.seed}-{number:02d}",
            variant=variant,
            seed=self.seed,
            context=document.ids,
            text=document.text,
            questions=tuple(questions),
        )
