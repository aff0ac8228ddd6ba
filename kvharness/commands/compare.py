"""`kvharness compare A B`: what changed from one store to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from kvharness.claims.compare import changed_verdicts, changes
from kvharness.commands.reading import (
    add_files,
    check_metric,
    interval_text,
    judged,
    read_evidence,
    show,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from kvharness.claims.compare import Change


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("first", type=Path, metavar="A", help="the store before")
    parser.add_argument("second", type=Path, metavar="B", help="the store after")
    parser.add_argument("--metric", default="nll", help="of the differences (default: nll)")
    parser.add_argument("--all", action="store_true", help="also list cells without a change")
    add_files(parser)


def run(given: argparse.Namespace) -> int:
    """Exit status 0: a change is news, not a mistake."""
    check_metric(given.metric)
    (first, _), (second, _) = read_evidence(given.first), read_evidence(given.second)
    found = list(changes(first, second, given.metric))
    show(_table([each for each in found if given.all or each.differs], given.metric))
    show(_masks(found))
    verdicts = changed_verdicts(judged(first, given.file), judged(second, given.file))
    show(
        f"claim {name}: {one.value} in A, {two.value} in B" for name, (one, two) in verdicts.items()
    )
    show([f"{len(verdicts)} verdicts changed"])
    return 0


def _table(found: Sequence[Change], metric: str) -> Iterator[str]:
    """Positive differences are better in B, whatever the metric."""
    rows = [
        [
            each.suite,
            str(each.column),
            interval_text(each.interval),
            each.units,
            each.masks or "-",
            _alone(each),
        ]
        for each in found
    ]
    if rows:
        better = f"{metric}: B minus A, + is better"
        headers = ["suite", "cell", better, "items", "masks changed", "only in"]
        yield tabulate(rows, headers=headers, disable_numparse=True)


def _masks(found: Sequence[Change]) -> Iterator[str]:
    shared, masks = sum(each.units for each in found), sum(each.masks for each in found)
    yield (
        f"{masks} of {shared} shared records kept other entries; where the entries are the same, "
        f"a difference comes from decoding"
    )


def _alone(change: Change) -> str:
    sides = (("A", change.only_first), ("B", change.only_second))
    return ", ".join(f"{name}: {count}" for name, count in sides if count)
