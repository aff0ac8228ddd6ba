"""Judging the claims of a run when its tests are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness._messages import typed
from kvharness.claims.evidence import Evidence
from kvharness.plugin.cell_ids import cells_of_ids, test_of
from kvharness.records.store import Store
from kvharness.report import verdict_text
from kvharness.report.github import append_summary
from kvharness.settings.table import ClaimsMode, SettingTable
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pytest

    from kvharness.claims.judgement import Judgement
    from kvharness.plugin.claims_gate import Gate
    from kvharness.plugin.record_source import Cells, RecordSource
    from kvharness.run.settings import Settings


class Judging:
    """From what was collected and stored to verdicts, reports and their table.

    Args:
        gate: the claims of the run.
        settings: of the run.
        source: of the records.
    """

    def __init__(self, gate: Gate, settings: Settings, source: RecordSource) -> None:
        self.gate = gate
        self.settings = settings
        self.judgements: list[Judgement] = []
        self.evidence: Evidence | None = None
        self._source = source
        self._ids: Sequence[str] = ()
        self._suites: dict[str, str] = {}

    @property
    def is_shard(self) -> bool:
        """Whether this run has some of the groups only, so that its verdicts would mean little."""
        return self.settings.shard[1] > 1

    def note_ids(self, ids: Sequence[str]) -> list[str]:
        """What an xdist worker collected; all of them collect the same. Returns the outlook."""
        first, self._ids = not self._ids, ids
        return self.outlook(cells_of_ids(ids, {})) if first else []

    def note_suite(self, nodeid: str, suite: str) -> None:
        self._suites[test_of(nodeid)] = suite

    def outlook(self, cells: Cells) -> list[str]:
        """Lines before the run: what each claim will be able to show."""
        return self._source.outlook(cells) if self.gate.claims and not self.is_shard else []

    def judge(self, session: pytest.Session, cells: Cells, keys: set[str]) -> None:
        """Judge and report each verdict as a test."""
        evidence = self._evidence(cells or cells_of_ids(self._ids, self._suites), keys)
        self.evidence = evidence
        if evidence is None or not self.gate.claims or self.is_shard:
            return
        self.judgements = self.gate.judge(evidence)
        session.testscollected += len(self.judgements)
        for report in self.gate.reports(self.judgements, evidence):
            session.config.hook.pytest_runtest_logreport(report=report)

    def _evidence(self, cells: Cells, keys: set[str]) -> Evidence | None:
        by_key = Store.read(self._source.directory).by_key
        found = [by_key[key] for key in sorted(keys) if key in by_key]
        if not found:
            return None
        return Evidence.of(
            found,
            plan=self._source.plan(cells),
            place=typed(self._source.directory),
            options=self._options(self._source.options),
        )

    def _options(self, given: Mapping[str, str]) -> dict[str, str]:
        """What a run is to be given again."""
        strict = self.gate.mode is ClaimsMode.STRICT
        flag = SettingTable.claims.flag
        return {**given, **({flag: ClaimsMode.STRICT.value} if strict else {})}

    def summary(self) -> Iterator[str]:
        """The table of verdicts at the end."""
        if any(each.verdict is not Verdict.NOT_EVALUATED for each in self.judgements):
            yield ""
        if self.judgements:
            yield from verdict_text.verdicts(self.judgements)
        if self.gate.claims and self.is_shard:
            yield (
                f"claims are not judged on one shard; when all have run: "
                f"kvharness claims {typed(self._source.directory)}"
            )
        problem = append_summary(self.evidence, self.judgements)
        if problem:
            yield problem
