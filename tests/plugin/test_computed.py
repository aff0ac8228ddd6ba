from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from kvharness.cell import Cell, Group
from kvharness.contract import retention_from_text
from kvharness.errors import UsageProblem
from kvharness.plugin.computed import Computed
from kvharness.plugin.groups import Work
from kvharness.plugin.screen import Screen
from kvharness.run.outcome import GroupOutcome, Tally
from tests.claims.conftest import pair, spread
from tests.plugin.test_claims_session import cells_of
from tests.run.test_settings import settings as settings_of
from tests.runs import a_record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.claims.conftest import Made

CLAIM = """
[[claim]]
id = "mine"
kind = "better"
policy = "snapkv"
baseline = "random"
suites = ["qa"]
retention = ["0.25"]
metric = "nll"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a claim, and folders that may be models."""
    for name in ("tiny", "other"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").touch()
    (tmp_path / "claims.toml").write_text(CLAIM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def computed(here: Path, *, collect_only: bool = False, **raw: Any) -> Computed:
    config = cast("pytest.Config", SimpleNamespace(getoption=lambda *_, **__: collect_only))
    values = {
        "policy": ["snapkv"],
        "retention": ["0.25"],
        "kv_seeds": "2",
        "kv_model": "models/tiny",
        "kv_store": str(here / "store"),
        "kv_claims_file": [str(here / "claims.toml")],
        **raw,
    }
    return Computed(config, settings_of(values), Screen(config))


def test_what_claims_compare_with_is_run_too(here: Path) -> None:
    columns = ["full", "floor", "oracle-r0.25", "snapkv-r0.25", "random-r0.25"]
    names = [cell.name for cell in computed(here, collect_only=True).cells("qa")]
    assert names == [f"{column}-s{seed}" for seed in (0, 1) for column in columns]
    alone = computed(here, collect_only=True, kv_claims="off").cells("qa")
    assert [cell.name for cell in alone[:4]] == [f"{column}-s0" for column in columns[:4]]


def test_its_title_counts_what_was_collected(here: Path) -> None:
    source = computed(here, kv_evict="blocks")
    assert source.title({}) == []
    (line,) = source.title({Group("qa", 0): [cast("Cell", object())] * 3})
    assert line == (
        f"kvharness: 3 cells in 1 groups of 12 items; models/tiny, context 1024, question unseen, "
        f"evict blocks; store {here / 'store'}"
    )


def test_budgets_are_checked_before_anything_is_looked_for(here: Path) -> None:
    with pytest.raises(UsageProblem, match="--kv-context 9 keeps 2 entries a head"):
        computed(here, kv_context="9", kv_model="no/such/folder")


def test_results_are_those_of_its_groups(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = GroupOutcome(items=2, computed=3, failures={"random-r0.25-s0": "why"})
    outcome.untrained["sip-r0.25-s0"] = "no weights"
    outcome.records["snapkv-r0.25-s0"].append(a_record("a"))
    outcome.records["random-r0.25-s0"].append(a_record("b"))
    monkeypatch.setattr(Work, "outcome", lambda *_: outcome)
    source = computed(here)
    fine, failed, untrained = (
        Cell(suite="qa", policy=name, retention=retention_from_text("0.25"), seed=0)
        for name in ("snapkv", "random", "sip")
    )
    assert [source.failure(cell) for cell in (fine, failed, untrained)] == ["", "why", ""]
    assert [source.lack(cell) for cell in (fine, failed, untrained)] == ["", "", "no weights"]
    assert [record.key for record in source.result(fine).records] == ["a"]
    assert source.result(fine).expected == 2
    assert source.result(failed).records == (), "what was stored before it failed is no result"
    assert source.tallies(fine) == [Tally.of(fine.group, outcome)]


def test_a_policy_that_is_broken_is_a_problem_once_it_was_loaded(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = computed(here, policy=["snapkv(nosuch=1)"], kv_claims="off")
    assert source.problems == []
    source.load()
    (problem,) = source.problems
    assert "nosuch" in str(problem)
    with pytest.raises(UsageProblem, match="nosuch"):
        source.check({})
    listed = computed(here, policy=["snapkv(nosuch=1)"], kv_claims="off", collect_only=True)
    monkeypatch.setattr("kvharness.discovery.registry.load", None)
    listed.load()
    assert listed.problems == [], "a list of names needs no policy"


def finds(here: Path, made: Made, **raw: Any) -> str:
    """The row of the claim."""
    source = computed(here, kv_seeds="5", **raw)
    (row,) = (line for line in source.outlook(cells_of(made)) if line.split()[0] == "mine")
    return row


def test_records_of_this_model_and_contract_tell_the_spread(here: Path) -> None:
    made = pair(spread(sd=0.01))
    made.write(here / "store")
    assert "0.0032 nll" in finds(here, made)
    typical = finds(here, made, kv_store=str(here / "none"))
    assert "0.32 nll" in typical
    assert finds(here, made, kv_context="64", retention=["0.5"]) == typical
    assert finds(here, made, kv_model="models/other") == typical
