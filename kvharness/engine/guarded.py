"""The code of an observation, which may be a stranger's, as the harness runs it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kvharness.isolation.attribution import blamed_for_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvharness.isolation.last_words import BlackBox
    from kvharness.policy.observation.base import Observation


@contextmanager
def guarded(box: BlackBox, item: str, observation: Observation[Any]) -> Iterator[None]:
    """During the pass over an item, and of what was seen of it.

    Raises:
        ModelProblem: it raised something, or left torch's settings changed.
    """
    with box.during(f"{observation} on {item}"), blamed_for_all(str(observation)):
        yield


@contextmanager
def guarded_step(box: BlackBox, observation: Observation[Any]) -> Iterator[None]:
    """Between evictions: of every layer after every token, so that 0.1 ms are too long."""
    with box.during(f"{observation} between evictions"):
        yield
