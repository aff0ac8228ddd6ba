"""How much of what several contexts hold is new in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def distinct_share(contexts: Iterable[Sequence[int]], window: int = 50) -> float:
    """The share of distinct windows among all runs of ``window`` tokens of the contexts.

    1 if no window occurs twice, and if no context is as long as a window. Items whose filler
    repeats are near-clones, and count for less than their number.
    """
    # Hashes, not windows: 64 bits each instead of `window` tokens, so large runs fit in memory.
    hashes = [
        hash(tuple(context[start : start + window]))
        for context in contexts
        for start in range(len(context) - window + 1)
    ]
    return len(set(hashes)) / len(hashes) if hashes else 1.0
