from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from kvharness.cell import Cell
from kvharness.claims.claim import Column
from kvharness.contract import Contract, Protection, QuestionMode
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import StoreProblem
from kvharness.plugin.replay import Replay
from kvharness.records.comparable import NOTHING, newest_records
from tests.runs import SETTINGS, a_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kvharness.run.settings import Settings
    from tests.runs import Keep


def a_setting(
    *policies: str,
    retentions: Sequence[str] = (),
    seeds: int | None = None,
    replay: Path = Path(),
    demanded: Mapping[str, str] = NOTHING,
) -> Settings:
    settings = SimpleNamespace(
        named=[spec.slug for text in policies for spec in PolicySpec.parse_list(text)],
        retentions=tuple(Fraction(text) for text in retentions or ("0.1", "0.5")),
        retentions_given=bool(retentions),
        seeds=seeds or 5,
        seeds_given=seeds is not None,
        replay=replay,
        contract=Contract(),
        demanded=demanded,
    )
    return cast("Settings", settings)


def read(
    directory: Path,
    *policies: str,
    retentions: Sequence[str] = (),
    seeds: int | None = None,
    beside: Sequence[str] = (),
    demanded: Mapping[str, str] = NOTHING,
) -> Replay:
    settings = a_setting(
        *policies, retentions=retentions, seeds=seeds, replay=directory, demanded=demanded
    )
    return Replay.read(directory, settings, beside)


def keys(replay: Replay) -> list[str]:
    return sorted(record.key for records in replay.by_cell.values() for record in records)


def test_cells_contract_and_records_are_read_back(keep: Keep, tmp_path: Path) -> None:
    keep(a_record("b", item="needle-s0-01"), a_record("a"), a_record("c", seed=1))
    replay = read(tmp_path)
    assert replay.contract == Contract(
        context=400, protection=Protection(sinks=3, recents=5), question=QuestionMode.SEEN
    )
    first, second = replay.cells("needle")
    assert first == Cell(suite="needle", policy="snapkv", retention=Fraction(1, 4), seed=0)
    assert [record.key for record in replay.records(first)] == ["a", "b"], "in order of items"
    assert [record.key for record in replay.records(second)] == ["c"]
    assert (replay.model, replay.items, replay.runs) == ("tiny", 2, {"snapkv": 2})
    assert replay.cells("qa") == []
    assert replay.records(replace(first, seed=9)) == []


def test_cells_are_in_the_order_of_a_run(keep: Keep, tmp_path: Path) -> None:
    keep(
        *(
            a_record(f"{policy}-{retention}-{seed}", policy=policy, retention=retention, seed=seed)
            for policy, retention in (
                ("tova", "0.5"),
                ("tova", "1_3"),
                ("h2o", "0.25"),
                ("oracle", "0.25"),
                ("floor", None),
                ("full", None),
            )
            for seed in (10, 2)
        )
    )
    columns = ["full", "floor", "oracle-r0.25", "h2o-r0.25", "tova-r1_3", "tova-r0.5"]
    names = [cell.name for cell in read(tmp_path).cells("needle")]
    assert names == [f"{column}-s{seed}" for seed in (2, 10) for column in columns]


def test_of_two_runs_in_one_second_the_later_file_is_the_newest(keep: Keep, tmp_path: Path) -> None:
    keep(a_record("old"), generate="none")
    keep(a_record("new"), generate="all")
    assert keys(read(tmp_path)) == ["new"]


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "e2"},
        {"model": {"name": "tiny", "digest": "def"}},
        {"contract": {**SETTINGS["contract"], "sinks": 4}},
        {"generate": "all"},
        {"data": {"qa": "file.jsonl"}},
        {"items": 12},
        {"options": {"--kv-haystack": "mine.txt"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_only_the_newest_settings_are_replayed(
    keep: Keep, tmp_path: Path, change: dict[str, Any]
) -> None:
    keep(a_record("old", policy="random"), second=1)
    keep(a_record("new"), second=2, **change)
    assert keys(read(tmp_path)) == ["new"]
    records, _, left_out = newest_records(tmp_path)
    assert [record.key for record in records] == ["new"]
    assert left_out == 1


def test_a_replay_is_of_the_settings_that_were_given(keep: Keep, tmp_path: Path) -> None:
    keep(a_record("old"))
    keep(a_record("new"), second=9, contract={**SETTINGS["contract"], "context": 800})
    replay = read(tmp_path, demanded={"--kv-context": "400"})
    assert keys(replay) == ["old"]
    assert replay.contract.context == 400
    with pytest.raises(StoreProblem, match="--kv-context=77; there are some of --kv-context=400, "):
        read(tmp_path, demanded={"--kv-context": "77"})


def test_more_seeds_and_policies_are_no_other_settings(keep: Keep, tmp_path: Path) -> None:
    keep(a_record("one"), second=1, seeds=1)
    keep(a_record("two", policy="random", seed=1), second=2, seeds=2, policies={"random": {}})
    assert keys(read(tmp_path)) == ["one", "two"]


def test_two_versions_of_a_policy_are_not_mixed(keep: Keep, tmp_path: Path) -> None:
    """A run that was stopped after an edit has not replaced every item yet."""
    keep(a_record("a1"), a_record("b1", item="needle-s0-01"), second=1)
    keep(a_record("a2"), second=2, policies={"snapkv": {"source": "s2"}})
    assert keys(read(tmp_path)) == ["a2"]


def test_the_options_select_policies_and_the_anchors_stay(keep: Keep, tmp_path: Path) -> None:
    keep(
        *(
            a_record(name, policy=name, retention=None if name in {"full", "floor"} else "0.25")
            for name in ("full", "floor", "oracle", "snapkv+window8", "random")
        )
    )
    assert keys(read(tmp_path, "snapkv(window=8)")) == ["floor", "full", "oracle", "snapkv+window8"]
    assert keys(read(tmp_path, "full")) == ["floor", "full", "oracle"]
    with pytest.raises(StoreProblem, match="no record is of tova; there are full, floor, oracle"):
        read(tmp_path, "random,tova")


def test_policies_beside_those_that_were_given(keep: Keep, tmp_path: Path) -> None:
    keep(*(a_record(name, policy=name) for name in ("snapkv", "random", "h2o")))
    assert keys(read(tmp_path, "snapkv", beside=["random", "sip"])) == ["random", "snapkv"]
    assert keys(read(tmp_path, beside=["random"])) == ["h2o", "random", "snapkv"]


def test_there_should_be_what_the_runs_were_given(keep: Keep, tmp_path: Path) -> None:
    keep(a_record("a"), a_record("b", seed=1))
    quarter, half = Column("snapkv", "0.25"), Column("snapkv", "0.5")
    replay = read(tmp_path)
    plan = replay.plan(replay.by_cell, a_setting())
    assert (plan.items, plan.drawn_for("snapkv"), plan.drawn_for("tova")) == (2, 2, 0)
    assert [*plan.of("needle", quarter)] == [*plan.of("qa", half)] == [0, 1], "stored or lost"
    assert not plan.of("needle", Column("tova", "0.25"))
    first = [cell for cell in replay.by_cell if cell.seed == 0]
    assert [*replay.plan(first, a_setting()).of("needle", quarter)] == [0]
    assert not replay.plan([], a_setting()).of("needle", quarter)
    fewer = read(tmp_path, seeds=1)
    assert [*fewer.plan(fewer.by_cell, a_setting()).of("needle", quarter)] == [0]
    assert fewer.runs == {"snapkv": 1}
    named = replay.plan(replay.by_cell, a_setting(retentions=["0.25"]))
    assert not named.of("needle", half)
    assert [*named.of("needle", quarter)] == [*named.of("qa", quarter)] == [0, 1]


@pytest.fixture
def grid(keep: Keep) -> None:
    """Two seeds from the seventh on, and an anchor without a retention."""
    keep(
        *(
            a_record(f"{policy}-{retention}-{seed}", policy=policy, retention=retention, seed=seed)
            for policy, retention in (("full", None), ("tova", "1_3"), ("tova", "0.5"))
            for seed in (6, 7)
        )
    )


@pytest.mark.usefixtures("grid")
def test_retentions_and_seeds_select_when_they_are_given(tmp_path: Path) -> None:
    assert len(keys(read(tmp_path))) == 6, "the defaults select nothing"
    assert keys(read(tmp_path, retentions=["1/3"])) == [
        "full-None-6",
        "full-None-7",
        "tova-1_3-6",
        "tova-1_3-7",
    ]
    assert keys(read(tmp_path, retentions=["0.5"], seeds=7)) == ["full-None-6", "tova-0.5-6"]
    assert len(keys(read(tmp_path, seeds=99))) == 6


@pytest.mark.usefixtures("grid")
def test_what_selects_nothing_is_told_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(StoreProblem, match=r"at --retention 0\.25; there are 1_3, 0\.5$"):
        read(tmp_path, retentions=["0.5", "0.25"])
    with pytest.raises(StoreProblem, match=r"of a seed below --kv-seeds 6; there are 6, 7$"):
        read(tmp_path, seeds=6)


def test_there_is_nothing(tmp_path: Path, keep: Keep) -> None:
    places = ((tmp_path / "missing", "no such folder"), (tmp_path, "no records in this folder"))
    for directory, told in places:
        with pytest.raises(StoreProblem, match=told):
            read(directory)
        with pytest.raises(StoreProblem, match=told):
            newest_records(directory)
    keep()
    with pytest.raises(StoreProblem, match="there are no records"):
        read(tmp_path)
