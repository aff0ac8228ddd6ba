from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from kvharness.cell import Cell
from kvharness.claims.plan import Wanted
from kvharness.contract import retention_from_text
from kvharness.plugin.claims_gate import Gate
from kvharness.plugin.claims_session import Judging
from kvharness.plugin.computed import Computed
from kvharness.plugin.replayed import Replayed
from kvharness.plugin.screen import Screen
from kvharness.settings.table import ClaimsMode
from kvharness.statistics.region import Verdict
from tests.claims.conftest import CONTRACT, Made, claim, pair, spread
from tests.run.test_settings import settings as settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kvharness.cell import Group
    from kvharness.claims.claim import Claim
    from kvharness.run.settings import Settings

IDS = [
    f"suites/test_qa.py::test_qa[{policy}-r0.25-s{seed}]"
    for seed in range(5)
    for policy in ("snapkv", "random")
]


class Session:
    """As much of pytest's as judging uses."""

    def __init__(self) -> None:
        self.testscollected = 10
        self.reports: list[pytest.TestReport] = []
        self.config = SimpleNamespace(hook=SimpleNamespace(pytest_runtest_logreport=self._log))

    def _log(self, *, report: pytest.TestReport) -> None:
        self.reports.append(report)


def gate(*claims: Claim) -> Gate:
    wanted = Wanted(policies=(), retentions={})
    return Gate(mode=ClaimsMode.STRICT, claims=claims, wanted=wanted, installed=None)


def a_setting(store: Path, **raw: Any) -> Settings:
    return settings_of({"kv_store": str(store), "kv_model": "models/tiny", **raw})


def judging_of(store: Path, *claims: Claim, **raw: Any) -> Judging:
    """Of a run that computes."""
    config = cast("pytest.Config", SimpleNamespace())
    settings = a_setting(store, **raw)
    return Judging(gate(*claims), settings, Computed(config, settings, Screen(config)))


def cells_of(made: Made, *, seeds: Iterable[int] = range(5)) -> dict[Group, list[Cell]]:
    found: dict[Group, dict[Cell, None]] = {}
    for record in made.records:
        retention = retention_from_text(record.retention) if record.retention else None
        cell = Cell(suite=record.suite, policy=record.policy, retention=retention, seed=record.seed)
        if record.seed in seeds:
            found.setdefault(cell.group, {})[cell] = None
    return {group: list(cells) for group, cells in found.items()}


def run(
    judging: Judging, made: Made, cells: dict[Group, list[Cell]] | None = None
) -> tuple[Session, dict[str, str]]:
    """Judge what some tests told, and the verdict of each claim."""
    session = Session()
    given = cells_of(made) if cells is None else cells
    keys = {record.key for record in made.records}
    judging.judge(cast("pytest.Session", session), given, keys)
    return session, {each.claim.id: each.verdict.value for each in judging.judgements}


def test_verdicts_are_logged_as_tests(tmp_path: Path) -> None:
    made = pair(spread(mean=9.0))
    made.write(tmp_path)
    judging = judging_of(tmp_path, claim(), claim(id="other", metric="bytes"))
    session, found = run(judging, made)
    assert found == {"mine": "supported", "other": "refuted"}
    assert session.testscollected == 12
    assert [report.nodeid for report in session.reports if report.when == "call"] == [
        "claims::mine",
        "claims::other",
    ]
    assert list(judging.summary())[-1] == "claims: 1 supported, 1 refuted"


def test_only_records_that_tests_looked_at_count(tmp_path: Path) -> None:
    made = pair(spread(mean=9.0))
    made.write(tmp_path)
    made.drop(policy="snapkv", seed=0)
    judging = judging_of(tmp_path, claim())
    assert run(judging, made)[1] == {"mine": "inconclusive"}
    assert judging.judgements[0].reason == "1 of 10 cells missing"


def test_the_model_and_store_of_the_run_are_told(tmp_path: Path) -> None:
    made = pair(spread(mean=9.0))
    made.write(tmp_path)
    session, _ = run(judging_of(tmp_path, claim(expect={"tiny": Verdict.REFUTED})), made)
    words = str(session.reports[0].longrepr)
    assert "--kv-model=models/tiny --kv-claims=strict " in words
    assert f"kvharness claims {tmp_path} " in words


def test_a_store_below_the_current_folder_is_shown_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = pair(spread(mean=9.0))
    made.write(tmp_path / "mine")
    session, _ = run(judging_of(tmp_path / "mine", claim()), made)
    assert "kvharness claims mine " in session.reports[0].sections[0][1]


@pytest.mark.parametrize(("claims", "raw"), [((), {}), ((claim(),), {"kv_shard": "1/2"})])
def test_without_claims_and_in_a_shard_nothing_is_judged(
    tmp_path: Path, claims: tuple[Claim, ...], raw: dict[str, str]
) -> None:
    made = pair(0.0)
    made.write(tmp_path)
    judging = judging_of(tmp_path, *claims, **raw)
    session, found = run(judging, made)
    assert (found, session.reports, session.testscollected) == ({}, [], 10)
    assert judging.outlook(cells_of(made)) == []
    assert bool(list(judging.summary())) is bool(claims)


def test_a_store_that_is_gone_is_survived(tmp_path: Path) -> None:
    session, found = run(judging_of(tmp_path / "gone", claim()), pair(0.0))
    assert (found, session.reports) == ({}, [])


# -- xdist ----------------------------------------------------------------------------------------


def test_a_controller_knows_the_cells_from_its_workers(tmp_path: Path) -> None:
    made = pair(spread(mean=9.0))
    made.write(tmp_path)
    judging = judging_of(tmp_path, claim())
    assert judging.note_ids(IDS)
    assert judging.note_ids(IDS) == [], "the outlook is told once"
    assert run(judging, made, {})[1] == {"mine": "supported"}
    lost = judging_of(tmp_path, claim())
    lost.note_ids([*IDS, IDS[0].replace("s0", "s7")])
    assert run(lost, made, {})[1] == {"mine": "inconclusive"}


def test_a_function_of_another_name_tells_its_suite(tmp_path: Path) -> None:
    made = pair(spread(mean=9.0))
    made.write(tmp_path)
    judging = judging_of(tmp_path, claim())
    judging.note_ids([each.replace("test_qa[", "test_mine[") for each in IDS])
    judging.note_suite("suites/test_qa.py::test_mine[snapkv-r0.25-s0]", "qa")
    assert run(judging, made, {})[1] == {"mine": "supported"}


# -- replay ---------------------------------------------------------------------------------------


def replayed(folder: Path, *, seeds: Iterable[int] = range(5), **raw: Any) -> Judging:
    """Judge the cells of a store, as far as options select them and tests are left of them."""
    settings = a_setting(folder, kv_replay=str(folder), **raw)
    source = Replayed(folder, settings)
    judging = Judging(gate(claim(expect={"tiny": Verdict.SUPPORTED})), settings, source)
    chosen = [cell for cell in source.cells("qa") if cell.seed in seeds]
    cells = {cell.group: [each for each in chosen if each.group == cell.group] for cell in chosen}
    keys = {record.key for cell in chosen for record in source.result(cell).records}
    judging.judge(cast("pytest.Session", Session()), cells, keys)
    return judging


@pytest.fixture(autouse=True)
def model_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run was given as its model is there when its store is replayed."""
    here = tmp_path_factory.mktemp("here")
    (here / "models" / "tiny").mkdir(parents=True)
    (here / "models" / "tiny" / "config.json").touch()
    monkeypatch.chdir(here)


def test_a_replay_is_judged_as_a_store(tmp_path: Path) -> None:
    made = pair(spread(mean=9.0))
    made.write(tmp_path)
    (found,) = replayed(tmp_path).judgements
    assert (found.verdict, found.expected) == (Verdict.SUPPORTED, Verdict.SUPPORTED)


def test_a_replay_of_a_lossy_store_is_inconclusive(tmp_path: Path) -> None:
    made = pair(spread(mean=9.0))
    made.records = [record for record in made.records if record.seed != 3]
    made.write(tmp_path)
    (found,) = replayed(tmp_path).judgements
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "2 of 10 cells missing")


def seeds_judged(judging: Judging) -> set[int]:
    assert judging.evidence is not None
    return {each.seed for found in judging.evidence.records.values() for each in found}


def test_what_a_replay_deselects_is_neither_missing_nor_judged(tmp_path: Path) -> None:
    pair(spread(mean=9.0)).write(tmp_path)
    judging = replayed(tmp_path, seeds=[0, 1])
    (found,) = judging.judgements
    assert (found.verdict, found.expected) == (Verdict.SUPPORTED, None)
    assert found.elsewhere == "only 2 of 5 seeds were selected"
    assert found.parts[0].units == 24
    assert seeds_judged(judging) == {0, 1}


def test_the_options_of_a_replay_select_what_is_judged(tmp_path: Path) -> None:
    pair(spread(mean=9.0)).run("snapkv", "0.5").write(tmp_path)
    judging = replayed(tmp_path, kv_seeds="2")
    (found,) = judging.judgements
    assert (found.verdict, found.expected) == (Verdict.SUPPORTED, Verdict.SUPPORTED)
    assert found.parts[0].units == 24
    assert seeds_judged(judging) == {0, 1}
    elsewhere = replayed(tmp_path, retention=["0.5"])
    (found,) = elsewhere.judgements
    assert found.verdict is Verdict.NOT_EVALUATED
    assert elsewhere.evidence is not None
    assert {column.retention for _, column in elsewhere.evidence.records} == {"0.5"}


def test_a_replay_tells_how_it_was_run(tmp_path: Path) -> None:
    pair(0.0, options={"--kv-dtype": "float32"}).write(tmp_path)
    judging = replayed(tmp_path)
    assert judging.evidence is not None
    assert judging.evidence.options == {"--kv-dtype": "float32", "--kv-claims": "strict"}


def test_a_replay_judges_the_newest_settings(tmp_path: Path) -> None:
    old = pair(spread(mean=-9.0), contract={**CONTRACT, "context": 64})
    old.write(tmp_path)
    made = pair(spread(mean=9.0))
    made.write(tmp_path)
    (found,) = replayed(tmp_path).judgements
    assert found.verdict is Verdict.SUPPORTED
