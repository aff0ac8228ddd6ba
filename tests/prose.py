"""Text to train on."""

from __future__ import annotations

import random

WORDS = [
    "the",
    "old",
    "sailor",
    "went",
    "down",
    "to",
    "sea",
    "and",
    "saw",
    "no",
    "land",
    "for",
    "many",
    "long",
    "grey",
    "days",
    "of",
    "wind",
]


def prose(words: int, seed: int = 0) -> str:
    """Random words in lines of a dozen and paragraphs of sixty, as a printed book breaks them."""
    rng = random.Random(seed)
    drawn = [rng.choice(WORDS) for _ in range(words)]
    lines = [" ".join(drawn[start : start + 12]) for start in range(0, words, 12)]
    return "\n".join(line + ("\n" if number % 5 == 4 else "") for number, line in enumerate(lines))
