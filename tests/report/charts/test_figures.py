from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kvharness.claims.judge import judge
from kvharness.errors import UsageProblem
from kvharness.report.charts.figures import figures, left_out
from kvharness.report.charts.forest import forest
from kvharness.report.charts.plots import pair_plot
from kvharness.report.survey import Survey
from kvharness.statistics.region import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.conftest import Lab

FORMATS = {"png": b"\x89PNG", "pdf": b"%PDF"}


def names(paths: list[Path]) -> set[str]:
    return {path.name for path in paths}


def test_figures_are_files_that_are_not_empty(lab: Lab, tmp_path: Path) -> None:
    records = lab.records(["random", "h2o", "sip", "oracle", "full", "floor"], suites=["qa"])
    evidence = lab.evidence(records)
    claim = lab.claim(policy="sip", suites=("qa",), kind=Kind.NOT_BETTER, margin=0.1)
    paths = figures(evidence, judge([claim], evidence), tmp_path / "new" / "folder")
    stems = ("forest_plot_ci", "significance_matrix", "sip_vs_random")
    assert names(paths) == {f"{stem}.{kind}" for stem in stems for kind in FORMATS}
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(FORMATS[path.suffix[1:]])
        assert len(content) > 5000
    assert not left_out(Survey.of(evidence))


def test_sip_has_a_series_for_each_scope(lab: Lab) -> None:
    survey = Survey.of(lab.evidence(lab.records(["random", "sip"])))
    drawn = [forest(survey, scope, "score") for scope in survey.scopes]
    (axes,) = pair_plot([each for each in drawn if each], "sip", margin=0.1).axes
    handles, labels = axes.get_legend_handles_labels()
    assert labels == ["all suites, n = 72", *(f"{suite}, n = 24" for suite in survey.suites)]
    looks = {(line.get_color(), line.get_marker()) for line in handles}  # type: ignore[attr-defined]
    assert len(looks) == 4


def test_the_same_records_give_the_same_files(lab: Lab, tmp_path: Path) -> None:
    evidence = lab.evidence(lab.records(["random", "h2o"], suites=["qa"], retentions=["0.5"]))
    first, second = (figures(evidence, [], tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_without_sip(lab: Lab, tmp_path: Path) -> None:
    evidence = lab.evidence(lab.records(["random", "h2o"], suites=["qa"], retentions=["0.5"]))
    assert left_out(Survey.of(evidence)) == {"sip_vs_random": "there are no records of sip"}
    assert not any(name.startswith("sip") for name in names(figures(evidence, [], tmp_path)))


@pytest.mark.parametrize("policies", [["sip"], ["full", "floor"], ["oracle"]])
def test_nothing_to_compare(lab: Lab, tmp_path: Path, policies: list[str]) -> None:
    evidence = lab.evidence(lab.records(policies, suites=["qa"]))
    assert figures(evidence, [], tmp_path) == []
    reasons = left_out(Survey.of(evidence))
    assert set(reasons) == {"forest_plot_ci", "significance_matrix", "sip_vs_random"}


def test_no_records(lab: Lab, tmp_path: Path) -> None:
    assert figures(lab.empty(), [], tmp_path) == []


def test_names_are_no_formulas(lab: Lab, tmp_path: Path) -> None:
    records = lab.records(["random", "a$\\frac$"], suites=["qa"], retentions=["0.5"])
    assert len(figures(lab.evidence(records), [], tmp_path)) == 4


def test_few_items_have_no_interval(lab: Lab, tmp_path: Path) -> None:
    records = lab.records(["random", "sip"], suites=["qa"], retentions=["0.5"], seeds=1, items=1)
    assert len(figures(lab.evidence(records), [], tmp_path)) == 6


def test_a_file_in_the_way(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageProblem, match=r"cannot write figures to .*taken.*--figures DIR"):
        figures(lab.evidence(lab.records(["random", "h2o"])), [], tmp_path / "taken")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(lab: Lab, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageProblem, match="cannot write figures"):
        figures(lab.evidence(lab.records(["random", "h2o"])), [], tmp_path / "new")
