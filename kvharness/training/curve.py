"""How a training went on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Of the curves of a training: its losses in nats, after so many steps and seconds."""

    step: int
    train: float
    held_out: float
    seconds: float
