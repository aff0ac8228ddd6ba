from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import WHOLE, finish

if TYPE_CHECKING:
    from tests.plugin.conftest import Finished, Lab

CONFTEST = """
import sys

def pytest_unconfigure(config):
    print(f"\\nheavy: {sorted({'torch', 'transformers', 'datasets'} & set(sys.modules))}")
"""


def tables(result: pytest.RunResult) -> list[str]:
    """The section at the end of a run, without what only a run knows."""
    lines = result.outlines
    start = next(n for n, line in enumerate(lines) if line.strip("=") == " kvharness ")
    end = next(n for n, line in enumerate(lines) if n > start and line.startswith("===="))
    only = ("records computed", "windows of the generated contexts")
    return [line for line in lines[start:end] if not any(text in line for text in only)]


@pytest.fixture
def copied(lab: Lab, whole: Finished) -> Lab:
    """A folder with a store, and no trace of the model that made it."""
    shutil.copytree(whole.lab.folder / "store", lab.folder / "kept")
    return lab


def replay(lab: Lab, *given: str, store: str = "kept") -> pytest.RunResult:
    return lab.main("suites/test_needle.py", f"--kv-replay={store}", *given)


def test_a_replay_prints_the_same_tables_without_torch(copied: Lab, whole: Finished) -> None:
    (copied.folder / "conftest.py").write_text(CONFTEST)
    process = copied.start("suites/test_needle.py", "--kv-replay=kept", "-pno:hypothesispytest")
    result = finish(process)
    result.assert_outcomes(passed=16)
    assert tables(result) == tables(whole.result)
    result.stdout.fnmatch_lines(["heavy: []"])
    assert {path.name for path in copied.folder.iterdir()} >= {"kept"}
    assert not (copied.folder / ".kvharness").exists()


def test_a_replay_of_what_is_selected(copied: Lab) -> None:
    result = replay(copied, "--policy=snapkv")
    result.assert_outcomes(passed=12)
    text = "\n".join(tables(result))
    assert "random" not in text
    assert "oracle" in text
    replay(copied, "--retention=0.5").assert_outcomes(passed=10)
    replay(copied, "--kv-seeds=1", "--policy=random").assert_outcomes(passed=6)
    replay(copied, "-kr0.25").assert_outcomes(passed=6, deselected=10)
    replay(copied, "--kv-shard=1/2").assert_outcomes(passed=8, deselected=8)


def test_a_replay_has_the_ids_of_the_run(copied: Lab, whole: Finished) -> None:
    listed = replay(copied, "--collect-only", "-q").outlines
    expected = whole.lab.collect(*WHOLE)
    assert sorted(line.partition("::")[2] for line in listed if "::" in line) == sorted(expected)


def test_suites_without_records_are_not_there(copied: Lab) -> None:
    result = copied.main("suites", "--kv-replay=kept", "-pno:hypothesispytest")
    result.assert_outcomes(passed=16, deselected=result.parseoutcomes()["deselected"])
    result = copied.main("suites/test_qa.py", "--kv-replay=kept", "-pno:hypothesispytest")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["kvharness: *kept has records of needle, of which no test was *"])


def test_what_cannot_be_read_is_told(copied: Lab) -> None:
    (copied.folder / "kept" / "junk.jsonl.xz").write_bytes(b"junk")
    result = replay(copied)
    result.assert_outcomes(passed=16)
    result.stdout.fnmatch_lines(["kvharness: *kept: 'junk.jsonl.xz': damaged or not an xz file*"])


@pytest.mark.parametrize(
    ("store", "told"), [("missing", "no such folder"), ("empty", "there are no records in this")]
)
def test_nothing_to_replay_is_a_usage_error(lab: Lab, store: str, told: str) -> None:
    (lab.folder / "empty").mkdir()
    result = replay(lab, store=store)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{store}: {told}*"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--retention=0.3", "no record is at --retention 0.3; there are 0.25, 0.5"),
        ("--policy=nosuch", "no record is of nosuch; there are full, floor, *"),
    ],
)
def test_no_record_of_what_is_selected_is_a_usage_error(
    copied: Lab, option: str, message: str
) -> None:
    result = replay(copied, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *--kv-replay *: {message}"])


def test_only_the_newest_settings_are_replayed(lab: Lab) -> None:
    first = lab.run("--policy=snapkv,random", "--kv-seeds=1")
    first.assert_outcomes(passed=5)
    lab.run("--kv-seeds=1", "--kv-sinks=2", "--kv-fresh")
    result = replay(lab, store="store")
    result.assert_outcomes(passed=4)
    assert "sinks 2," in str(result.stdout)
    assert "random" not in "\n".join(tables(result))


def test_items_of_another_draw_are_not_mixed_in(lab: Lab) -> None:
    """The items of a seed depend on how many there are: the depths are spread over them."""
    lab.run("--kv-seeds=1", "--kv-items=3")
    newest = lab.run("--kv-seeds=1", "--kv-items=2", "-kfull or snapkv")
    assert tables(replay(lab, store="store")) == tables(newest)


def test_a_cell_that_misses_items_fails(copied: Lab) -> None:
    (file,) = (copied.folder / "kept").glob("*.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    gone = next(n for n, line in enumerate(lines) if json.loads(line).get("policy") == "random")
    file.write_text("".join(lines[:gone] + lines[gone + 1 :]))
    result = replay(copied)
    result.assert_outcomes(passed=15, failed=1)
    assert "1 of 2 items have a record" in str(result.stdout)
