"""One thread for checks: their tensors are so small that threads mostly wait for each other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread; afterwards it has as many as before.

    The checks of three policies took 50 CPU seconds with one thread, and 555 with torch's default
    on a machine where other processes ran.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
