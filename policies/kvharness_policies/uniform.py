"""Even draws, the same on every device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor


def uniform(shape: tuple[int, ...], rng: Generator) -> Tensor:
    # Drawn where the generator lives: a CPU stream is the same on every device.
    return torch.rand(shape, generator=rng, dtype=torch.float32, device=rng.device)
