"""Judging the claims of a run when its tests are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.claims import text
from kvharness.claims.evidence import Evidence
from kvharness.claims.planning import plan_of
from kvharness.collected import cells_of_ids, test_of
from kvharness.errors import StoreProblem
from kvharness.inference.region import Verdict
from kvharness.replay import comparable
from kvharness.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pytest

    from kvharness.cell import Cell, Group
    from kvharness.claims.judgement import Judgement
    from kvharness.gate import Gate
    from kvharness.settings import Settings


class Judging:
    """From what was collected and stored to verdicts, reports and their table."""

    def __init__(self, gate: Gate, settings: Settings) -> None:
        self.gate = gate
        self.settings = settings
        self.judgements: list[Judgement] = []
        self._ids: Sequence[str] = ()
        self._suites: dict[str, str] = {}

    def note_ids(self, ids: Sequence[str]) -> list[str]:
        """What an xdist worker collected; all of them collect the same. Returns the outlook."""
        first, self._ids = not self._ids, ids
        return self.outlook(cells_of_ids(ids, {})) if first else []

    def note_suite(self, nodeid: str, suite: str) -> None:
        self._suites[test_of(nodeid)] = suite

    def outlook(self, cells: Mapping[Group, Sequence[Cell]]) -> list[str]:
        """Lines before the run: what each claim will be able to show."""
        if not self.gate.claims or self.settings.replay is not None:
            return []
        plan = plan_of(cells, self.settings.items)
        return list(self.gate.outlook(plan, self._recorded()))

    def _recorded(self) -> Evidence | None:
        """Earlier records tell the spread of differences."""
        try:
            stored, *_ = comparable(self.settings.store)
        except StoreProblem:
            return None
        return Evidence.of(stored)

    def judge(
        self, session: pytest.Session, cells: Mapping[Group, Sequence[Cell]], keys: set[str]
    ) -> None:
        """Judge and report each verdict as a test."""
        planned = cells or cells_of_ids(self._ids, self._suites)
        evidence = self._evidence(planned, keys)
        if evidence is None or not self.gate.claims:
            return
        self.judgements = self.gate.judge(evidence)
        session.testscollected += len(self.judgements)
        for report in self.gate.reports(self.judgements, evidence):
            session.config.hook.pytest_runtest_logreport(report=report)

    def _evidence(self, cells: Mapping[Group, Sequence[Cell]], keys: set[str]) -> Evidence | None:
        directory = self.settings.replay or self.settings.store
        if self.settings.replay is not None:
            stored, *_ = comparable(directory)
            return Evidence.of(stored, place=self._shown(directory))
        by_key = Store.read(directory).by_key
        found = [by_key[key] for key in sorted(keys) if key in by_key]
        if not found:
            return None
        plan = plan_of(cells, self.settings.items)
        return Evidence.of(found, plan=plan, place=self._shown(directory))

    def _shown(self, directory: Path) -> str:
        try:
            return str(directory.relative_to(directory.cwd()))
        except ValueError:
            return str(directory)

    def summary(self) -> Iterator[str]:
        """The table of verdicts at the end."""
        if any(each.verdict is not Verdict.NOT_EVALUATED for each in self.judgements):
            yield ""
        if self.judgements:
            yield from text.verdicts(self.judgements)
