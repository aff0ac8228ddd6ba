"""Compression of what is already compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given

from kvharness.testing.examples import PURE, examples
from kvharness.testing.session import Session
from kvharness.testing.strategies import sessions
from kvharness.testing.subject import ready

if TYPE_CHECKING:
    from kvharness.policy.interface import Policy, ScoreFunction
    from kvharness.testing.strategies import Step


def check_survives_repeated_compression(
    policy: Policy | ScoreFunction, *, count: int = PURE
) -> None:
    """Sinks and recents outlive any number of compressions, and the cache stays in order.

    Tokens are appended, compressed and read in any order, beside a list of positions. The
    views of later compressions have positions with gaps.

    Raises:
        Mistake: names the sink that was lost, and in which compression.
    """
    subject = ready(policy)

    @examples(count)
    @given(steps=sessions())
    def holds(steps: list[Step]) -> None:
        session = Session(subject)
        for step in steps:
            session.take(step)
            session.read()

    holds()
