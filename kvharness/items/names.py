"""Invented names and random values, which no model can have seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_OPENINGS = [
    "Bal",
    "Bren",
    "Cor",
    "Dav",
    "Els",
    "Fen",
    "Gar",
    "Hol",
    "Ist",
    "Jor",
    "Kel",
    "Lor",
    "Mar",
    "Nev",
    "Osk",
    "Pel",
    "Quin",
    "Ros",
    "Sel",
    "Tor",
    "Ulm",
    "Vor",
    "Wen",
    "Yor",
    "Zel",
]
_ENDINGS = [
    "dale",
    "by",
    "ford",
    "mere",
    "wick",
    "ton",
    "stead",
    "haven",
    "moor",
    "ness",
    "vik",
    "gate",
    "holm",
    "brook",
    "rath",
]


def places(rng: random.Random, count: int) -> list[str]:
    """Invented place names; no two begin alike, and no two of up to 15 end alike.

    A small model takes "Corwick" for "Norwick", which would measure the model, not its cache.
    """
    rounds = -(-count // len(_ENDINGS))
    ends = [end for _ in range(rounds) for end in rng.sample(_ENDINGS, len(_ENDINGS))]
    starts = rng.sample(_OPENINGS, count)
    return [start + end for start, end in zip(starts, ends, strict=False)]


def numbers(rng: random.Random, count: int, *, digits: int) -> list[str]:
    """Different numbers of so many digits."""
    return [str(n) for n in rng.sample(range(10 ** (digits - 1), 10**digits), count)]
