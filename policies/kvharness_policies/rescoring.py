"""What policies share that have no memory of their own as they evict on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Step


class Rescoring(Policy):
    """Scores what the cache holds anew at each step, as if it were a context."""

    def step(self, step: Step) -> Tensor:
        return self.score(step.view)
