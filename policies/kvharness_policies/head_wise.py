"""What policies share that give heads and layers unequal numbers of entries."""

from __future__ import annotations

from kvharness import Capabilities

HEAD_WISE = Capabilities(head_wise=True, nested=False)


def check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: expected a share from 0 to 1")
