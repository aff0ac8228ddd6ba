"""`kvharness compare A B`: what changed from one store to another."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from kvharness.claims.evidence import oracle_label
from kvharness.cli.reading import (
    add_files,
    check_metric,
    judged,
    read_evidence,
    show,
)
from kvharness.report.verdict_text import interval_text
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from kvharness.claims.compare import Change

_WIDTH = 98


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("first", type=Path, metavar="A", help="the store before")
    parser.add_argument("second", type=Path, metavar="B", help="the store after")
    parser.add_argument("--metric", default="nll", help="of the differences (default: nll)")
    parser.add_argument("--all", action="store_true", help="also list cells without a change")
    add_files(parser)


def run(given: argparse.Namespace) -> int:
    """Exit status 0: a change is news, not a mistake."""
    from kvharness.claims.compare import (  # noqa: PLC0415 - scipy
        changed_policies,
        changed_settings,
        changed_verdicts,
        changes,
    )

    check_metric(given.metric)
    (first, before), (second, after) = read_evidence(given.first), read_evidence(given.second)
    show(_settings(changed_settings(before[-1], after[-1])))
    show(f"{name}: other code or parameters" for name in changed_policies(first, second))
    found = changes(first, second, given.metric, (given.first, given.second))
    shown = [each for each in found if given.all or each.differs]
    show(_table(shown, given.metric, first.oracles | second.oracles))
    show(_counts(found))
    verdicts = changed_verdicts(judged(first, given.file), judged(second, given.file))
    show(_verdicts(verdicts))
    return 0


def _settings(changed: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    for name, (one, other) in changed.items():
        yield f"{name}: {one} in A, {other} in B"


def _table(found: Sequence[Change], metric: str, oracles: frozenset[str]) -> Iterator[str]:
    """Positive differences are better in B, whatever the metric."""
    rows = [
        [
            each.suite,
            oracle_label(each.column.policy, oracles)
            + str(each.column).removeprefix(each.column.policy),
            interval_text(each.interval),
            "yes" if each.moved else "-",
            each.records,
            _masks(each),
        ]
        for each in found
    ]
    if rows:
        better = f"{metric}: B minus A, + is better [90 %]"
        headers = ["suite", "cell", better, "surely", "records", "masks changed"]
        yield from tabulate(rows, headers=headers, disable_numparse=True).splitlines()


def _masks(change: Change) -> str:
    if not change.masks:
        return "-"
    share = "" if change.shared is None else f", at least {change.shared:.2%} of entries shared"
    return f"{change.masks}{share}"


def _counts(found: Sequence[Change]) -> Iterator[str]:
    shared = sum(each.records for each in found)
    if not shared:
        yield "A and B have no record of the same cell and item: other suites, seeds or contexts"
    else:
        masks = sum(each.masks for each in found)
        moved = sum(each.moved for each in found)
        both = sum(bool(each.records) for each in found)
        yield (
            f"{shared} records in both: {masks} kept other entries; {moved} of {both} shared cells "
            f"differ surely (Holm, 5 %)"
        )
        yield "where the same entries are kept, a difference comes from decoding"
    for name, counts in (
        ("A", [(each.only_first, each.records + each.only_second) for each in found]),
        ("B", [(each.only_second, each.records + each.only_first) for each in found]),
    ):
        alone = sum(bool(count) and not elsewhere for count, elsewhere in counts)
        if any(count for count, _ in counts):
            whole = f", {alone} cells of them whole" if alone else ""
            yield f"{sum(count for count, _ in counts)} records only in {name}{whole}"


def _verdicts(changed: Mapping[str, tuple[Verdict, Verdict]]) -> Iterator[str]:
    """Each claim that both stores can judge; the others in a line."""
    both = {name: pair for name, pair in changed.items() if Verdict.NOT_EVALUATED not in pair}
    yield f"{len(both)} verdicts changed"
    for name, (one, two) in both.items():
        yield f"    {name}: {one.value} in A, {two.value} in B"
    for store, side in (("A", 1), ("B", 0)):
        alone = [name for name, pair in changed.items() if pair[side] is Verdict.NOT_EVALUATED]
        if alone:
            yield from textwrap.wrap(
                f"only {store} has what these are judged on: {', '.join(alone)}",
                _WIDTH,
                subsequent_indent="    ",
                break_on_hyphens=False,
            )
