"""Claims inside a pytest run: what they need, what they will see, and their test reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from kvharness.claims import text
from kvharness.claims.discovery import all_claims
from kvharness.claims.judgement import Outcome
from kvharness.claims.planning import Needs, detectable, needs, selected
from kvharness.inference.region import Verdict
from kvharness.settings import ClaimsMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from fractions import Fraction

    from kvharness.claims.claim import Claim
    from kvharness.claims.evidence import Evidence, Plan
    from kvharness.claims.judgement import Judgement
    from kvharness.settings import Settings

#: The user property that carries a verdict, also in JUnit files.
PROPERTY = "kvharness-claim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The claims of a run.

    Attributes:
        mode: what a surprise does.
        claims: those that are judged at its end.
        needs: policies and retentions to run for them.
        installed: names of installed policies.
    """

    mode: ClaimsMode
    claims: tuple[Claim, ...]
    needs: Needs
    installed: frozenset[str]

    @classmethod
    def of(cls, settings: Settings, slugs: Iterable[str], installed: Iterable[str]) -> Gate:
        """Find the claims of the policies that a run was asked for.

        Raises:
            ClaimProblem: a claims file cannot be read.
        """
        known = frozenset(installed)
        found: list[Claim] = []
        if settings.claims is not ClaimsMode.OFF:
            everything = all_claims(settings.claims_files)
            found = selected(everything, slugs if settings.policies else None)
        return cls(
            mode=settings.claims,
            claims=tuple(found),
            needs=needs(
                found,
                installed=known,
                retentions=settings.retentions if settings.retentions_given else None,
            ),
            installed=known,
        )

    def retentions(self, slug: str, chosen: Sequence[Fraction]) -> list[Fraction]:
        """The retentions to run a policy at."""
        return sorted({*chosen, *self.needs.retentions.get(slug, ())})

    def outlook(self, plan: Plan, recorded: Evidence | None) -> Iterator[str]:
        """Before the run: the smallest difference that each claim will be able to show."""
        sizes = detectable(self.claims, plan, recorded)
        if sizes:
            yield f"kvharness: {len(sizes)} claims will be judged ({self.mode.value})"
            yield from text.power_lines(self.claims, sizes)

    def judge(self, evidence: Evidence) -> list[Judgement]:
        from kvharness.claims.judge import judge  # noqa: PLC0415 - scipy

        return judge(self.claims, evidence, installed=self.installed)

    def reports(
        self, judgements: Iterable[Judgement], evidence: Evidence
    ) -> Iterator[pytest.TestReport]:
        """A test report for each verdict; only `strict` makes a surprise fail."""
        for judgement in judgements:
            yield _report(judgement, evidence, strict=self.mode is ClaimsMode.STRICT)


def _report(judgement: Judgement, evidence: Evidence, *, strict: bool) -> pytest.TestReport:
    claim, outcome = judgement.claim, judgement.outcome
    words = "\n".join(text.explain(judgement, evidence))
    surprising = outcome in {Outcome.DIFFERS, Outcome.UNDECIDED}
    result: tuple[str, object] = ("passed", None)
    if surprising and strict:
        result = ("failed", words)
    elif judgement.verdict is Verdict.NOT_EVALUATED:
        result = ("skipped", (claim.origin, 0, f"not evaluated: {judgement.reason}"))
    elif judgement.verdict is Verdict.INCONCLUSIVE and outcome is not Outcome.AS_EXPECTED:
        result = ("skipped", (claim.origin, 0, f"inconclusive: {judgement.reason}"))
    verdict = {"id": claim.id, "verdict": judgement.verdict.value, "outcome": outcome.value}
    return pytest.TestReport(
        nodeid=f"claims::{claim.id}",
        location=(claim.origin, 0, claim.id),
        keywords={},
        outcome=result[0],  # type: ignore[arg-type]
        longrepr=result[1],  # type: ignore[arg-type]
        when="call",
        sections=[] if result[0] == "failed" else [("claim", words)],
        user_properties=[(PROPERTY, verdict)],
    )


def status(report: pytest.TestReport) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """How pytest counts and shows the report of a claim; None for any other report."""
    found = dict(report.user_properties).get(PROPERTY)
    if not isinstance(found, dict):
        return None
    verdict, outcome = str(found["verdict"]), str(found["outcome"])
    word = verdict.upper()
    if report.failed:
        return "failed", "F", (word, {"red": True})
    if verdict == Verdict.NOT_EVALUATED:
        return "skipped", "s", (word, {"yellow": True})
    if report.skipped:
        return "inconclusive", "?", (word, {"yellow": True})
    if outcome == Outcome.DIFFERS:
        return "surprising", "!", (word, {"yellow": True})
    return "passed", ".", (word, {"green": True})
