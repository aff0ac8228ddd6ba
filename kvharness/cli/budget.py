"""`kvharness budget`: how far a cache can be compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from kvharness.claims.toml_table import expected_one
from kvharness.cli.reading import add_store, check_metric, read_evidence, show
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import UsageProblem
from kvharness.report.verdict_text import interval_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from kvharness.claims.budget import Certification
    from kvharness.claims.evidence import Evidence


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    add_store(parser)
    parser.add_argument(
        "--policy", required=True, metavar="NAME", help="one policy, as in a run's --policy"
    )
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
    from kvharness.claims.budget import certifications  # noqa: PLC0415 - scipy

    check_metric(given.metric)
    if not 0 < given.margin < 1e12:
        raise UsageProblem(f"--margin {given.margin}: expected a number above 0")
    evidence, _ = read_evidence(given.store, evict=given.evict)
    slug = _slug(given.policy, evidence)
    suites = sorted({suite for suite, column in evidence.records if column.policy == slug})
    asked = [[suite] for suite in suites] + ([suites] if len(suites) > 1 else [])
    name = evidence.label(slug)
    show([f"{name}: how little of the cache is certified to do? ({evidence.model})", ""])
    if name != slug:
        show(["it knows the true answers: no budget is recommended to a policy that does not", ""])
    for some in asked:
        found = certifications(
            evidence, policy=slug, suites=some, metric=given.metric, margin=given.margin
        )
        show(_lines(some, found))
    show(["", *_footnote(given)])
    return 0


def _slug(text: str, evidence: Evidence) -> str:
    """The policy as records name it."""
    there = sorted({column.policy for _, column in evidence.records if column.retention})
    if not there:
        raise UsageProblem(f"{evidence.place}: there are no records of a policy with a retention")
    specs = PolicySpec.parse_list(text)
    if len(specs) != 1 or specs[0].slug not in there:
        meant = specs[0].slug if len(specs) == 1 else text
        raise UsageProblem(f"--policy {text!r}: {expected_one(meant, there)}")
    return specs[0].slug


def _lines(suites: Sequence[str], found: Sequence[Certification]) -> Iterator[str]:
    from kvharness.claims.budget import smallest  # noqa: PLC0415 - scipy

    title = suites[0] if len(suites) == 1 else "all suites together"
    best = smallest(found)
    if best is None:
        yield f"{title}: no retention is certified"
    else:
        saved = "" if best.saved is None else f", which saves {best.saved:.0%} of the bytes"
        yield f"{title}: keep {best.retention}{saved}"
    if len(suites) == 1:
        yield from _table(found).splitlines()
        yield ""


def _table(found: Sequence[Certification]) -> str:
    rows = [
        [
            each.retention,
            _state(each),
            interval_text(part.part.interval),
            part.part.units or "-",
            part.part.reason or ("" if part.part.needed is None else f"about {part.part.needed}"),
        ]
        for each in found
        for part in each.parts
    ]
    headers = ["keep", "", "difference to full [90 %]", "items", "items that would settle it"]
    table: str = tabulate(rows, headers=headers, disable_numparse=True)
    return table


def _state(each: Certification) -> str:
    if each.certified:
        return "certified"
    return "not certified" if each.tested else "not tested"


def _footnote(given: argparse.Namespace) -> Iterator[str]:
    yield (
        f"certified: not worse than the full cache by more than {given.margin:g} {given.metric}. "
        f"Retentions are"
    )
    yield (
        "tested from high to low until the first that fails: for each suite, and for all together,"
    )
    yield "the chance of certifying any retention wrongly is 5 %"
