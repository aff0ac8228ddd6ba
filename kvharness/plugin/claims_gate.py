"""Claims inside a pytest run: what they need, what they will see, and their test reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from kvharness.claims import outlook
from kvharness.claims.find import all_claims
from kvharness.claims.judgement import Outcome
from kvharness.claims.plan import Wanted, can_run, halved, selected, wanted
from kvharness.discovery.presses import provided
from kvharness.discovery.resolve import require
from kvharness.errors import ClaimProblem, UsageProblem
from kvharness.report import verdict_text
from kvharness.settings.table import ClaimsMode
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from fractions import Fraction

    from kvharness.claims.claim import Claim
    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement
    from kvharness.claims.plan import Plan
    from kvharness.discovery.registry import Installed
    from kvharness.run.settings import Settings

#: The user properties that tell what became of a claim, also in JUnit files.
CLAIM, VERDICT, OUTCOME = "kvharness-claim", "kvharness-verdict", "kvharness-outcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The claims of a run.

    Attributes:
        mode: what a surprise does.
        claims: those that are judged at its end.
        wanted: policies and retentions to run for them.
        installed: what claims find installed, by name; None where nothing is run, so that none
            is needed.
        halved: families of which the run's policies select some claims and not others.
    """

    mode: ClaimsMode
    claims: tuple[Claim, ...]
    wanted: Wanted
    installed: frozenset[str] | None
    halved: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings, installed: Iterable[str] | None) -> Gate:
        """Find the claims of the policies that a run was asked for.

        ``installed`` is None where nothing is run.

        Raises:
            ClaimProblem: a claims file cannot be read.
        """
        there: list[Claim] = []
        if settings.claims is not ClaimsMode.OFF:
            there = list(all_claims(settings.claims_files))
        if installed is not None:
            # What is judged in no run of this kind must neither add policies nor correct others.
            there = [claim for claim in there if claim.evict == settings.contract.evict.value]
        one_by_one = None if settings.everything else settings.named or None
        found = selected(there, one_by_one, on_request=settings.everything or installed is None)
        known = None if installed is None else frozenset(installed) | provided()
        return cls(
            mode=settings.claims,
            claims=tuple(found),
            wanted=wanted(
                found,
                installed=known,
                contract=settings.contract,
                widen=not settings.retentions_given,
            ),
            installed=known,
            halved=halved(there, found, installed=known),
        )

    def check(self, known: Mapping[str, Installed]) -> None:
        """Refuse policies that could not be given to ``--policy`` either.

        Raises:
            ClaimProblem: names the file and the claim.
        """
        for claim in self.claims:
            if self.installed is None or not can_run(claim, self.installed):
                continue
            for spec in claim.policies:
                try:
                    require(spec, known)
                except UsageProblem as problem:
                    told = str(problem).removeprefix("--policy ")
                    raise ClaimProblem(f"{claim.origin}: claim {claim.id!r}: {told}") from None

    def retentions(self, slug: str, chosen: Sequence[Fraction]) -> list[Fraction]:
        """The retentions to run a policy at."""
        return sorted({*chosen, *self.wanted.retentions.get(slug, ())})

    def outlook(self, plan: Plan, recorded: Evidence | None) -> list[str]:
        """Before the run: the smallest difference that each claim will be able to show."""
        found = outlook.outlooks(self.claims, plan, recorded)
        if not found:
            return []
        some = f"{len(found)} claims" if len(found) > 1 else "1 claim"
        title = f"kvharness: {some} will be judged (--kv-claims={self.mode.value})"
        return [title, *outlook.lines(found)]

    def judge(self, evidence: Evidence) -> list[Judgement]:
        from kvharness.claims.judge import judge  # noqa: PLC0415 - scipy

        return judge(self.claims, evidence, installed=self.installed, halved=self.halved)

    def reports(
        self, judgements: Iterable[Judgement], evidence: Evidence
    ) -> Iterator[pytest.TestReport]:
        """Test reports of each verdict; only `strict` makes a surprise fail."""
        for judgement in judgements:
            called = _report(judgement, evidence, strict=self.mode is ClaimsMode.STRICT)
            yield called
            yield _ended(called)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crash:
    """Where pytest looks for what it prints in the line of a failed test."""

    path: str
    lineno: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class _Explained(str):
    """A failed claim: in full where failures are explained, in a line where they are listed."""

    __slots__ = ("reprcrash",)
    reprcrash: _Crash

    @classmethod
    def of(cls, judgement: Judgement, words: str) -> _Explained:
        made = cls(words)
        made.reprcrash = _Crash(
            path=judgement.claim.origin, lineno=0, message=verdict_text.headline(judgement)
        )
        return made


def _report(judgement: Judgement, evidence: Evidence, *, strict: bool) -> pytest.TestReport:
    claim, words = judgement.claim, "\n".join(verdict_text.explain(judgement, evidence))
    outcome, longrepr = _result(judgement, words, strict=strict)
    return pytest.TestReport(
        nodeid=f"claims::{claim.id}",
        location=(claim.origin, 0, claim.id),
        keywords={},
        outcome=outcome,
        longrepr=longrepr,
        when="call",
        sections=[] if outcome == "failed" else [("claim", words)],
        user_properties=[
            (CLAIM, claim.id),
            (VERDICT, judgement.verdict.value),
            (OUTCOME, judgement.outcome.value),
        ],
    )


def _ended(called: pytest.TestReport) -> pytest.TestReport:
    """What closes a test: JUnit files get its properties from there."""
    return pytest.TestReport(
        nodeid=called.nodeid,
        location=called.location,
        keywords={},
        outcome="passed",
        longrepr=None,
        when="teardown",
        user_properties=called.user_properties,
    )


def _result(
    judgement: Judgement, words: str, *, strict: bool
) -> tuple[Literal["passed", "failed", "skipped"], Any]:
    """The outcome of a test, and what pytest prints with it."""
    verdict, expected = judgement.verdict, judgement.outcome is Outcome.AS_EXPECTED
    if judgement.surprising and strict:
        return "failed", _Explained.of(judgement, words)
    if verdict is Verdict.NOT_EVALUATED or (verdict is Verdict.INCONCLUSIVE and not expected):
        return "skipped", (judgement.claim.origin, 0, f"{verdict.value}: {judgement.reason}")
    return "passed", None


def status(report: pytest.TestReport) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """How pytest counts and shows a claim; None where it does so as with any other test."""
    found = dict(report.user_properties)
    if CLAIM not in found or report.when != "call" or report.failed:
        return None
    verdict, outcome = str(found[VERDICT]), str(found[OUTCOME])
    word = verdict.upper()
    if verdict == Verdict.NOT_EVALUATED:
        return "skipped", "s", (word, {"yellow": True})
    if report.skipped:
        return "inconclusive", "?", (word, {"yellow": True})
    if outcome == Outcome.DIFFERS:
        return "surprising", "!", (word, {"yellow": True})
    return "passed", ".", (word, {"green": True})
