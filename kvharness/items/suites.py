"""The suites: named collections of items with a headline metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.items.language_modelling import language_modelling_items
from kvharness.items.ledger import ledger_items
from kvharness.items.needle import needle_items
from kvharness.items.qa import qa_items
from kvharness.items.qa_hard import comparison_items, records_items, two_hop_items
from kvharness.items.summarization import summarization_items

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from kvharness.items.drawing import Drawing
    from kvharness.items.item import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A named collection of items.

    Attributes:
        name: as in test ids.
        score: the headline metric, a key of `Record.metrics`.
        summary: one line for `kvharness suites`.
        draw: makes the items of one seed.
        hard: meant for larger models; collected only with ``--kv-hard``.
        alone: collected only where its file is named: it takes as long as all others together.
        solvable: whether a good model scores near 1; not where nobody could know what comes.
        real: whether ``--kv-data`` can replace its items.
        work: relative time of an item, measured on a CPU; orders groups for workers.
    """

    name: str
    score: str
    summary: str
    draw: Callable[[Drawing], list[Item]]
    hard: bool = False
    alone: bool = False
    solvable: bool = True
    real: bool = False
    work: float = 2.0

    @property
    def test(self) -> str:
        """Name of its test function."""
        return f"test_{self.module}"

    @property
    def module(self) -> str:
        """Its name as Python has it; that of its file where it has one of its own."""
        return self.name.replace("-", "_")

    @property
    def collected(self) -> str:
        """What collects it, to read."""
        if self.alone:
            return f"suites/{self.module}.py"
        return "--kv-hard" if self.hard else "default"


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
            name="language-modelling",
            score="slot_accuracy",
            summary="the last quarter of a running text, token by token",
            draw=language_modelling_items,
            alone=True,
            solvable=False,
        ),
        Suite(
            name="ledger",
            score="slot_accuracy",
            summary="sixteen towns and sums to write out in order, twice; a long reply",
            draw=ledger_items,
            alone=True,
            work=4.0,
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


def is_solvable(name: str) -> bool:
    """Whether a low score of the full cache speaks against a suite; also of unknown ones."""
    suite = SUITES.get(name)
    return suite is None or suite.solvable


def is_due(name: str, there: Collection[str]) -> bool:
    """Whether a store that has records of the suites ``there`` should have some of this one.

    One that is collected only by its name is due nowhere else, and where all that is there is of
    that kind, no other is.
    """
    return name in there or (is_default(name) and any(map(is_default, there)))


def is_default(name: str) -> bool:
    """Whether every run collects a suite unless told otherwise; also of unknown ones."""
    suite = SUITES.get(name)
    return suite is None or not (suite.hard or suite.alone)
