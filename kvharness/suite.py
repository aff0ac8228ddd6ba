"""The suites: named collections of items with a headline metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kvharness.items.needle import needle_items
from kvharness.items.qa import qa_items
from kvharness.items.qa_hard import comparison_items, records_items, two_hop_items
from kvharness.items.summarization import summarization_items

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.item import Item
    from kvharness.prompt import Encoder


class Draw(Protocol):
    """Makes the items of one seed."""

    def __call__(
        self, encoder: Encoder, *, context: int, seed: int, count: int, haystack: Path | None
    ) -> list[Item]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A named collection of items.

    Attributes:
        name: as in test ids.
        score: the headline metric, a key of `Record.metrics`.
        summary: one line for `kvharness suites`.
        draw: makes the items.
        hard: meant for larger models; collected only with ``--kv-hard``.
        real: whether ``--kv-data`` can replace its items.
        work: relative time of an item, measured on a CPU; orders groups for workers.
    """

    name: str
    score: str
    summary: str
    draw: Draw
    hard: bool = False
    real: bool = False
    work: float = 2.0


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="needle",
            score="exact",
            summary="a six-digit number for a named thing hidden in prose; one, one among "
            "others, or two of them",
            draw=needle_items,
            work=1.0,
        ),
        Suite(
            name="qa",
            score="exact",
            summary="eight one-of-a-kind facts woven into prose, all asked from one cache",
            draw=qa_items,
            real=True,
        ),
        Suite(
            name="summarization",
            score="slot_accuracy",
            summary="minutes and reports; do the facts of the reference summary survive?",
            draw=summarization_items,
            real=True,
            work=2.4,
        ),
        Suite(
            name="qa-records",
            score="exact",
            summary="eight people with the same attributes; one attribute of each is asked",
            draw=records_items,
            hard=True,
        ),
        Suite(
            name="qa-two-hop",
            score="exact",
            summary="a place names a person, the person a number; six such chains in prose",
            draw=two_hop_items,
            hard=True,
        ),
        Suite(
            name="qa-comparison",
            score="exact",
            summary="which of two places has the larger number; a guess is right in half",
            draw=comparison_items,
            hard=True,
        ),
    )
}
