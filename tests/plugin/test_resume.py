from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from kvharness.model.loaded import Runtime
from kvharness.records.engine_version import ENGINE_VERSION
from kvharness.run import identity
from tests.plugin.conftest import finish, stable

if TYPE_CHECKING:
    from tests.plugin.conftest import Lab

POLICY = """
def mine(view):
    return view.positions.float().repeat(view.kv_heads, 1)
"""
READING = """
from dataclasses import dataclass
from pathlib import Path
from kvharness import Policy


@dataclass(frozen=True)
class Read(Policy):
    file: str = ""

    def score(self, view):
        power = float(Path(self.file).read_text())
        return power * view.positions.float().repeat(view.kv_heads, 1)
"""
HOLDING = """
from dataclasses import dataclass
from kvharness import Policy


def pick(view):
    return view.positions


@dataclass(frozen=True)
class Held(Policy):
    pick: object = pick
"""
ANCHORS = 3
#: Long enough that it is still running when its first record is seen.
LONG = ("--policy=snapkv,random", "--kv-items=6")
LONG_RECORDS = 2 * 6 * (ANCHORS + 2)


class Count(Protocol):
    """Run the needle cells of one seed: how many records were computed, how many reused."""

    def __call__(self, *given: str) -> tuple[int, int]: ...


@pytest.fixture
def count(lab: Lab) -> Count:
    def run(*given: str) -> tuple[int, int]:
        return counted(lab.run("--kv-seeds=1", *given))

    return run


def counted(result: pytest.RunResult) -> tuple[int, int]:
    text = str(result.stdout)
    assert result.ret == pytest.ExitCode.OK, text
    match = re.search(r"^(\d+) records computed, (\d+) reused; store: ", text, re.MULTILINE)
    assert match is not None, text
    return int(match[1]), int(match[2])


def test_only_what_is_missing_is_computed(
    lab: Lab, count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count() == (8, 0)
    assert count("--retention=0.25,0.5") == (4, 8)
    assert count("--policy=snapkv,random", "--retention=0.25,0.5") == (4, 12)
    assert count("--kv-seeds=2") == (8, 8)
    monkeypatch.setattr(Runtime, "load", None)
    before = lab.lines()
    assert count("--policy=snapkv,random", "--retention=0.5,0.25") == (0, 16)
    assert lab.lines() == before, "a run that computes nothing writes nothing"


def test_what_changes_an_answer_is_computed_again(count: Count) -> None:
    assert count() == (8, 0)
    assert count("--kv-generate=first") == (8, 0)
    assert count("--kv-sinks=3") == (8, 0)
    assert count("--kv-dtype=bfloat16") == (8, 0)
    assert count("--kv-generate=first") == (0, 8)


def test_fresh_computes_again_and_the_store_only_grows(lab: Lab, count: Count) -> None:
    assert count() == (8, 0)
    first = stable(lab.records())
    assert count("--kv-fresh") == (8, 0)
    assert sum(lab.lines().values()) == 16
    assert stable(lab.records()) == first
    assert count() == (0, 8)


def test_an_edited_policy_is_computed_again(lab: Lab, count: Count) -> None:
    lab.install("mine-kv", {"mine": "mine_kv:mine"}, mine_kv=POLICY)
    assert count("--policy=mine") == (8, 0)
    assert count("--policy=mine") == (0, 8)
    (lab.site / "mine_kv.py").write_text(f'"""What it does."""\n{POLICY}\n# One more line.\n')
    assert count("--policy=mine") == (0, 8)
    (lab.site / "mine_kv.py").write_text(f"{POLICY}\nedited = 1\n")
    assert count("--policy=mine") == (2, 6)


def test_a_helper_of_a_policy_counts_and_its_neighbours_packages_do_not(
    lab: Lab, count: Count
) -> None:
    ranked = "def mine(view):\n    from {} import power\n    return power * {}\n"
    order = "view.positions.float().repeat(view.kv_heads, 1)"
    for name in ("one", "other"):
        modules: dict[str, Any] = {
            f"{name}_kv": ranked.format(f"{name}_help", order),
            f"{name}_help": "power = 1\n",
        }
        lab.install(f"{name}-kv", {name: f"{name}_kv:mine"}, **modules)
    assert count("--policy=one,other") == (10, 0)
    (lab.site / "one_help.py").write_text("power = -1\n")
    assert count("--policy=one,other") == (2, 8)
    assert count("--policy=one,other") == (0, 10)


def test_a_file_that_a_parameter_names_is_a_part_of_the_policy(lab: Lab, count: Count) -> None:
    lab.install("read-kv", {"read": "read_kv:Read"}, read_kv=READING)
    named = f"--policy=read(file='{lab.folder / 'power.txt'}')"
    (lab.folder / "power.txt").write_text("1")
    assert count(named) == (8, 0)
    assert count(named) == (0, 8)
    (lab.folder / "power.txt").write_text("-1")
    assert count(named) == (2, 6)


def test_a_parameter_with_an_address_is_a_usage_error(lab: Lab) -> None:
    lab.install("held-kv", {"held": "held_kv:Held"}, held_kv=HOLDING)
    result = lab.run("--policy=held")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: policy 'held': from held-kv 1.0: the parameter pick is <function *at 0x*>; this *"]
    )
    assert not result.outlines or "Traceback" not in str(result.stdout)


def test_another_version_of_the_engine_computes_everything_again(
    count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count() == (8, 0)
    monkeypatch.setattr(identity, "ENGINE_VERSION", ENGINE_VERSION + 1)
    assert count() == (8, 0)
    monkeypatch.undo()
    assert count() == (0, 8)


def test_another_version_of_a_package_is_computed_again(lab: Lab, count: Count) -> None:
    lab.install("mine-kv", {"mine": "mine_kv:mine"}, mine_kv=POLICY)
    assert count("--policy=mine") == (8, 0)
    (lab.site / "mine_kv-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mine-kv\nVersion: 1.1\n"
    )
    assert count("--policy=mine") == (2, 6)


def test_a_killed_run_goes_on_where_it_was(lab: Lab) -> None:
    process = lab.start(*lab.arguments(*LONG))
    while not lab.lines().total() > 0 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    finish(process)
    finished = stable(lab.records())
    assert 0 < len(finished) < LONG_RECORDS, "it was killed in mid-run"

    assert counted(lab.run(*LONG)) == (LONG_RECORDS - len(finished), len(finished))
    resumed = stable(lab.records())
    assert {key: resumed[key] for key in finished} == finished

    assert counted(lab.run(*LONG, "--kv-store=other")) == (LONG_RECORDS, 0)
    assert resumed == stable(lab.records("other"))
