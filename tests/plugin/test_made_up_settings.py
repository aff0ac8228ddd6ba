"""A setting takes one entry of the table: what follows from it is found here for two of them."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.cli.main import main
from kvharness.contract import Contract
from kvharness.records.store import Store
from kvharness.settings.setting import Reach, Setting, as_given, whole
from kvharness.settings.table import SettingTable
from tests.plugin.conftest import Finished

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.plugin.conftest import Lab, MakeLab

MADE_UP: dict[str, Setting[Any]] = {
    "fold": Setting(
        flag="--kv-fold",
        help="How often the context is folded",
        metavar="TIMES",
        default="2",
        parse=whole(0),
        reach=Reach.CONTRACT,
    ),
    "glue": Setting(
        flag="--kv-glue",
        help="What holds the folds",
        choices=("paste", "tape"),
        default="paste",
        parse=as_given,
        reach=Reach.ANSWER,
    ),
}
OTHERS = ("--kv-fold=5", "--kv-glue=tape")
CLAIM = """
[[claim]]
id = "mine"
kind = "better"
policy = "snapkv"
baseline = "full"
suites = ["needle"]
retention = ["0.25"]
metric = "bytes"
settings = { fold = FOLD }
expect = { tiny = "refuted" }
"""


@pytest.fixture(scope="module", autouse=True)
def entries() -> Iterator[None]:
    """The one change that makes them settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name, setting in MADE_UP.items():
            patch.setattr(SettingTable, name, setting, raising=False)
        yield


@pytest.fixture(scope="module")
def before(make_lab: MakeLab) -> Lab:
    """A store from the time when there were no such settings."""
    lab = make_lab()
    with pytest.MonkeyPatch.context() as patch:
        for name in MADE_UP:
            patch.delattr(SettingTable, name)
        assert lab.run("--kv-seeds=1").ret == pytest.ExitCode.OK
    return lab


@pytest.fixture(scope="module")
def ran(make_lab: MakeLab) -> Finished:
    """A run with their defaults, then one with others."""
    lab = make_lab()
    assert lab.run("--kv-seeds=1").ret == pytest.ExitCode.OK
    return Finished(lab, lab.run("--kv-seeds=1", *OTHERS))


def headers(lab: Lab) -> list[dict[str, Any]]:
    found = sorted(Store.read(lab.folder / "store").headers, key=lambda header: header.created)
    return [header.settings for header in found]


def replay(lab: Lab, *given: str) -> str:
    result = lab.main("suites/test_needle.py", "--kv-replay=store", "-pno:hypothesispytest", *given)
    return "\n".join([*result.outlines, *result.errlines])


def test_they_are_options_with_ini_twins(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--help")
    result.stdout.fnmatch_lines(
        [
            "  --kv-fold=TIMES *How often the context is folded (default: 2)",
            "  --kv-glue=paste|tape *What holds the folds (default: paste)",
            "  kv_fold (string): *Default of --kv-fold",
            "  kv_glue (string): *Default of --kv-glue",
        ]
    )


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("kv_fold", "twice", "--kv-fold 'twice': expected a whole number from 0 to 10000000"),
        ("kv_glue", "gum", "--kv-glue 'gum': expected one of paste, tape"),
    ],
)
def test_what_makes_no_sense_is_refused(ran: Finished, name: str, text: str, told: str) -> None:
    result = ran.lab.run("--collect-only", f"-o{name}={text}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {told}"])


def test_they_are_in_the_header_and_in_every_key(ran: Finished) -> None:
    usual, other = headers(ran.lab)
    assert usual["contract"] == {**Contract().as_dict(), "context": 400, "fold": 2}
    assert other["contract"] == {**usual["contract"], "fold": 5}
    assert "--kv-glue" not in usual["options"], "the default"
    assert other["options"] == {**usual["options"], "--kv-glue": "tape"}
    ran.result.stdout.fnmatch_lines(["8 records computed, 0 reused; store: *"])


@pytest.mark.parametrize("setting", OTHERS)
def test_each_of_them_changes_the_keys(ran: Finished, setting: str) -> None:
    same = ("--kv-seeds=1", "--kv-store=others", "-kfull")
    for given, told in (
        (same, "2 records computed, 0 reused"),
        ((*same, setting), "2 records computed, 0 reused"),
        ((*same, setting), "0 records computed, 2 reused"),
    ):
        ran.lab.run(*given).stdout.fnmatch_lines([f"{told}; store: *"])
    shutil.rmtree(ran.lab.folder / "others")


def test_a_setting_that_comes_makes_no_record_stale_while_it_has_its_default(before: Lab) -> None:
    result = before.run("--kv-seeds=1")
    result.stdout.fnmatch_lines(["0 records computed, 8 reused; store: *"])


def test_a_replay_demands_them(ran: Finished) -> None:
    assert ", evict prefill, fold 5\n" in replay(ran.lab, *OTHERS)
    assert ", evict prefill, fold 2\n" in replay(ran.lab, "--kv-fold=2", "--kv-glue=paste")
    told = replay(ran.lab, "--kv-fold=7", "--kv-glue=tape")
    assert "no record is of --kv-glue=tape --kv-fold=7; there are some of " in told
    assert "--kv-glue=paste --kv-fold=2" in told


def test_a_store_that_is_older_had_their_defaults(before: Lab) -> None:
    assert "fold" not in headers(before)[0]["contract"]
    assert "4 passed" in replay(before, "--kv-fold=2", "--kv-glue=paste")
    told = replay(before, *OTHERS)
    assert told.strip().endswith("there are some of --kv-glue=paste --kv-fold=2"), told


def test_printed_commands_give_them_again(ran: Finished) -> None:
    (ran.lab.folder / "mine.toml").write_text(CLAIM.replace("FOLD", "5"))
    judged = replay(ran.lab, *OTHERS, "--kv-claims-file=mine.toml", "--kv-claims=strict")
    lines = re.findall("measure, or what is missing: .*", judged)
    again = " --kv-fold=5 --kv-dtype=float32 --kv-generate=none --kv-glue=tape "
    assert lines
    assert all(again in line for line in lines)


def test_claims_hold_for_settings(ran: Finished) -> None:
    (ran.lab.folder / "mine.toml").write_text(CLAIM.replace("FOLD", "2"))
    given = (*OTHERS, "--kv-claims-file=mine.toml", "--kv-claims=strict")
    assert "established for fold 2 (here 5)" in replay(ran.lab, *given)
    (ran.lab.folder / "mine.toml").write_text(CLAIM.replace("FOLD", '"twice"'))
    assert "settings fold = 'twice': expected a whole number" in replay(ran.lab, *given)


def test_a_comparison_tells_what_differs(
    ran: Finished, before: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(before.folder / "store"), str(ran.lab.folder / "store")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("contract", "options"))] == [
        "contract fold: - in A, 5 in B",
        "options --kv-glue: - in A, tape in B",
    ]


def test_a_header_with_what_nobody_could_give_is_not_used(ran: Finished, make_lab: MakeLab) -> None:
    lab, (_, other) = make_lab(), sorted((ran.lab.folder / "store").glob("*.jsonl"))[:2]
    header, *records = other.read_text().splitlines()
    values = json.loads(header)
    values["settings"]["contract"]["fold"] = -1
    (lab.folder / "store").mkdir()
    (lab.folder / "store" / other.name).write_text("\n".join([json.dumps(values), *records, ""]))
    assert "header.settings.contract.fold: expected an integer from 0" in replay(lab)
