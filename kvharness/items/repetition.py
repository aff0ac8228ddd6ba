"""How much of what several contexts hold is new in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Novelty:
    """How many runs of 50 tokens some contexts have, and how many of these are distinct.

    Items whose filler repeats are near-clones, and count for less than their number.
    """

    windows: int = 0
    distinct: int = 0

    @classmethod
    def of(cls, contexts: Iterable[Sequence[int]], window: int = 50) -> Novelty:
        # Hashes, not windows: 64 bits each instead of `window` tokens.
        hashes = [
            hash(tuple(context[start : start + window]))
            for context in contexts
            for start in range(len(context) - window + 1)
        ]
        return cls(len(hashes), len(set(hashes)))

    @property
    def share(self) -> float:
        """1 if no window occurs twice, and if no context is as long as a window."""
        return self.distinct / self.windows if self.windows else 1.0

    def __add__(self, other: Novelty) -> Novelty:
        """Of two sets of contexts, each looked at on its own."""
        return Novelty(self.windows + other.windows, self.distinct + other.distinct)
