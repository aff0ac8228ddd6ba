"""`kvharness budget`: how far a cache can be compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from kvharness.claims.budget import smallest, steps
from kvharness.commands.reading import add_store, check_metric, interval_text, read_evidence, show
from kvharness.errors import UsageProblem
from kvharness.spec import PolicySpec

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from kvharness.claims.budget import Step


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    add_store(parser)
    parser.add_argument("--policy", required=True, metavar="NAME", help="as in a run's --policy")
    parser.add_argument(
        "--margin",
        type=float,
        default=0.1,
        help="how much worse than the full cache is still acceptable (default: 0.1)",
    )
    parser.add_argument(
        "--metric", default="recovered", help="what the margin is in (default: recovered)"
    )


def run(given: argparse.Namespace) -> int:
    """Exit status 0, also where no retention is certified."""
    check_metric(given.metric)
    if not 0 < given.margin < 1e12:
        raise UsageProblem(f"--margin {given.margin}: expected a number above 0")
    specs = PolicySpec.parse_list(given.policy)
    evidence, _ = read_evidence(given.store)
    if len(specs) != 1 or specs[0].slug not in evidence.policies:
        there = ", ".join(sorted(evidence.policies))
        raise UsageProblem(f"--policy {given.policy!r}: expected one of {there}")
    suites = sorted({suite for suite, _ in evidence.records})
    asked = [[suite] for suite in suites] + ([suites] if len(suites) > 1 else [])
    for some in asked:
        found = steps(
            evidence, policy=given.policy, suites=some, metric=given.metric, margin=given.margin
        )
        show(_lines(some, found, given))
    show([_footnote(given)])
    return 0


def _lines(
    suites: Sequence[str], found: Sequence[Step], given: argparse.Namespace
) -> Iterator[str]:
    title = suites[0] if len(suites) == 1 else "all suites together"
    best = smallest(found)
    if best is None:
        yield f"{title}: no retention of {given.policy} is certified"
    else:
        saved = "" if best.saved is None else f", which saves {best.saved:.0%} of the bytes"
        yield f"{title}: keep {best.retention}{saved}"
    if len(suites) == 1:
        yield from _table(found).splitlines()
        yield ""


def _table(found: Sequence[Step]) -> str:
    rows = [
        [
            step.retention,
            "certified" if step.certified else "-",
            interval_text(part.part.interval),
            part.part.units,
            part.part.reason or ("" if part.part.needed is None else f"about {part.part.needed}"),
        ]
        for step in found
        for part in step.parts
    ]
    headers = ["keep", "", "difference to full [90 %]", "items", "items that would settle it"]
    table: str = tabulate(rows, headers=headers, disable_numparse=True)
    return table


def _footnote(given: argparse.Namespace) -> str:
    return (
        f"certified: not worse than the full cache by more than {given.margin:g} {given.metric}, "
        f"from high to low retention until the first that fails; 5 % chance of certifying any "
        f"retention wrongly"
    )
