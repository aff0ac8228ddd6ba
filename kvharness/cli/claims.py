"""`kvharness claims`: verdicts on a store, and writing them down as expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.claims.accept import accept, acceptable
from kvharness.claims.toml_table import expected_one
from kvharness.cli.reading import add_files, add_store, judged, read_evidence, show
from kvharness.errors import UsageProblem
from kvharness.report import verdict_text
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    add_store(parser)
    add_files(parser)
    parser.add_argument(
        "--claim",
        action="append",
        default=[],
        metavar="ID",
        help="explain this claim, part by part; repeatable",
    )
    parser.add_argument(
        "--suite",
        action="append",
        default=[],
        metavar="NAME",
        help="only claims about this suite and no other, for a store of one suite; repeatable",
    )
    parser.add_argument(
        "--accept", action="store_true", help="write the observed verdicts as the expected ones"
    )
    parser.add_argument(
        "--report-only", action="store_true", help="exit with 0 whatever the verdicts"
    )
    parser.add_argument(
        "--complete",
        action="store_true",
        help="exit with 1 also where a verdict is expected and the store has no records for it",
    )


def run(given: argparse.Namespace) -> int:
    """Exit status 1 where a verdict is not the expected one, or undecided against it."""
    evidence, _ = read_evidence(given.store, evict=given.evict)
    judgements = _about(judged(evidence, given.file), given.suite)
    chosen = _chosen(judgements, given.claim)
    surprises = [each for each in chosen if _surprising(each, complete=given.complete)]
    if not given.claim:
        show(verdict_text.verdicts(chosen))
    for each in chosen if given.claim else surprises:
        show(
            [
                *([] if given.claim[:1] == [each.claim.id] else [""]),
                *verdict_text.explain(each, evidence),
            ]
        )
    if given.accept:
        written = _accept(chosen, evidence)
        surprises = [each for each in surprises if each not in written]
    return int(bool(surprises) and not given.report_only)


def _surprising(judgement: Judgement, *, complete: bool) -> bool:
    lost = judgement.verdict is Verdict.NOT_EVALUATED and judgement.expected is not None
    return judgement.surprising or (complete and lost)


def _about(judgements: list[Judgement], suites: Sequence[str]) -> list[Judgement]:
    """Those about these suites alone, or all where none is named."""
    known = {suite for each in judgements for suite in each.claim.suites}
    for name in suites:
        if name not in known:
            raise UsageProblem(f"--suite {name!r}: {expected_one(name, sorted(known))}")
    return [each for each in judgements if not suites or {*each.claim.suites} <= {*suites}]


def _chosen(judgements: list[Judgement], ids: Sequence[str]) -> list[Judgement]:
    known = {each.claim.id: each for each in judgements}
    for name in ids:
        if name not in known:
            raise UsageProblem(f"--claim {name!r}: {expected_one(name, known)}")
    return [known[name] for name in dict.fromkeys(ids)] if ids else judgements


def _accept(judgements: Sequence[Judgement], evidence: Evidence) -> list[Judgement]:
    """Those whose verdicts were written."""
    written = acceptable(judgements)
    show(["", *accept(written, evidence.model)])
    ending = "; review the diff" if written else ": all are as expected or not judged whole"
    show([f"{len(written)} expectations of {evidence.model} written{ending}"])
    return written
