from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvharness.cli.reading import check_metric, read_evidence
from kvharness.errors import StoreProblem, UsageProblem
from tests.claims.conftest import CONTRACT, Made

if TYPE_CHECKING:
    from pathlib import Path


def test_the_newest_settings_are_read_and_the_others_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(seeds=1, contract={**CONTRACT, "context": 64}).run("snapkv", "0.5").write(tmp_path)
    Made(seeds=1).run("snapkv", "0.25").write(tmp_path)
    evidence, headers = read_evidence(tmp_path)
    assert evidence.contract["context"] == 1024
    assert evidence.place == str(tmp_path)
    assert [str(column) for _, column in evidence.records] == ["snapkv-r0.25"]
    assert len(headers) == 1
    assert capsys.readouterr().out == "12 records of other settings are left out\n"


def test_an_empty_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreProblem, match="expected what --kv-store wrote"):
        read_evidence(tmp_path)


def test_metrics_are_checked() -> None:
    check_metric("recovered")
    with pytest.raises(UsageProblem, match="did you mean 'recovered'"):
        check_metric("recoverd")
