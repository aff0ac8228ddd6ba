"""A lack of memory, told from other faults and put into words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from kvharness.errors import ModelProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a lack of memory is raised as, among other things.
LACKING = (RuntimeError, MemoryError)


def is_lack(error: Exception) -> bool:
    """Whether an error says that memory ran out.

    On a CPU torch raises a plain RuntimeError, which only its text tells from others.
    """
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator: " in str(error)


def too_large(device: torch.device, doing: str) -> ModelProblem:
    """The problem to report where nothing smaller can be tried."""
    fewer = ", run fewer workers (-n)" if device.type == "cpu" else ""
    return ModelProblem(
        f"{device} ran out of memory {doing}; lower --kv-context{fewer} or choose a smaller "
        f"--kv-model"
    )


@contextmanager
def explained(device: torch.device, doing: str) -> Iterator[None]:
    """Raise a lack of memory as a problem that says what to change.

    Raises:
        ModelProblem: memory ran out.
    """
    try:
        yield
    except LACKING as error:
        if is_lack(error):
            raise too_large(device, doing) from None
        raise
