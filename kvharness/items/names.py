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
    """Invented place names; no two begin alike, so none is a part of another."""
    return [opening + rng.choice(_ENDINGS) for opening in rng.sample(_OPENINGS, count)]


def numbers(rng: random.Random, count: int, *, digits: int) -> list[str]:
    """Different numbers of so many digits."""
    return [str(n) for n in rng.sample(range(10 ** (digits - 1), 10**digits), count)]
