from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvharness.claims.evidence import Evidence
from kvharness.records.store import Stored
from kvharness.report.github import VARIABLE, append_summary
from tests.records.test_store import HEADER, RECORD

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def evidence() -> Evidence:
    return Evidence.of([Stored(RECORD, HEADER)])


def test_nothing_is_written_unless_asked_for(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert append_summary(evidence, []) == ""


def test_summaries_are_appended(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    monkeypatch.setenv(VARIABLE, str(file))
    assert append_summary(None, []) == ""
    assert append_summary(evidence, []) == ""
    text = file.read_text()
    assert text.startswith("before\n")
    assert "sip" in text


def test_a_file_that_cannot_be_written_is_told(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert "cannot be written" in append_summary(evidence, [])
