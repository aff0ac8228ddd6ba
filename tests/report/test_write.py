from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kvharness.errors import UsageProblem
from kvharness.report.write import write_report

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.conftest import Lab


def test_the_page_and_the_figures(lab: Lab, tmp_path: Path) -> None:
    evidence = lab.evidence(lab.records(["random", "h2o"], suites=["qa"], retentions=["0.5"]))
    out = tmp_path / "new" / "report.html"
    written = write_report(evidence, [], [lab.header], out, tmp_path / "figures")
    assert written[0] == out
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {path.parent for path in written[1:]} == {tmp_path / "figures"}
    assert all(path.is_file() for path in written)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_text_that_is_no_unicode(lab: Lab, tmp_path: Path) -> None:
    records = lab.records(["lone \ud800 half"], suites=["qa"], retentions=["0.5"])
    write_report(lab.evidence(records), [], [], tmp_path / "report.html")
    assert "lone ? half" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["folder", "file/report.html"])
def test_a_place_that_cannot_be_written(lab: Lab, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageProblem, match=r"cannot write the report .*-o FILE"):
        write_report(lab.evidence(lab.records(["h2o"])), [], [], tmp_path / name)
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_an_old_page_is_replaced(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")
    write_report(lab.evidence(lab.records(["h2o"], suites=["qa"])), [], [], out)
    assert "old" not in out.read_text(encoding="utf-8")[:100]


def test_pages_need_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys; import kvharness.report.write, kvharness.report.markdown; "
        "print(sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
