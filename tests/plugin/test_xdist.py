from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import DEFAULTS, INI, WHOLE, Finished, finish, stable

if TYPE_CHECKING:
    from tests.plugin.conftest import Lab, MakeLab

#: Each worker notes which GPU it would use.
CONFTEST = """
import os
from pathlib import Path

def pytest_runtest_setup(item):
    worker, gpus = os.environ["PYTEST_XDIST_WORKER"], os.environ["CUDA_VISIBLE_DEVICES"]
    (Path(__file__).parent / f"{worker}.gpus").write_text(gpus)
"""
CRASH = """
import os

from kvharness import Policy


class Crash(Policy):
    def ready(self, model, seed):
        if seed == 1:
            os._exit(9)
        return self

    def score(self, view):
        return view.positions.float().repeat(view.kv_heads, 1)
"""


@pytest.fixture(scope="module")
def spread(make_lab: MakeLab) -> Finished:
    """One worker for each visible GPU; that this torch knows no GPU makes no difference."""
    lab = make_lab()
    (lab.folder / "conftest.py").write_text(CONFTEST)
    return Finished(lab, lab.spawn(*WHOLE, "-nauto", CUDA_VISIBLE_DEVICES="3,7"))


def test_auto_starts_a_worker_for_each_gpu_and_gives_it_that_one(spread: Finished) -> None:
    seen = {path.stem: path.read_text() for path in spread.lab.folder.glob("*.gpus")}
    assert seen == {"gw0": "3", "gw1": "7"}


def test_workers_store_what_one_process_does(spread: Finished, whole: Finished) -> None:
    spread.result.assert_outcomes(passed=16)
    assert stable(spread.lab.records()) == stable(whole.lab.records())


def test_no_group_is_computed_twice(spread: Finished) -> None:
    assert sorted(spread.lab.lines().values()) == [16, 16], "a group on each worker"
    assert len(spread.lab.records()) == 32


def test_the_summary_is_printed_once(spread: Finished, whole: Finished) -> None:
    headings = [line for line in spread.result.outlines if line.strip("=") == " kvharness "]
    assert len(headings) == 1
    numbers = [line for line in whole.result.outlines if "±" in line]
    assert [line for line in spread.result.outlines if "±" in line] == numbers


def test_what_only_workers_know_is_printed_as_by_one_process(
    spread: Finished, whole: Finished
) -> None:
    told = [line for line in whole.result.outlines if re.search("windows|records computed", line)]
    assert len(told) == 2
    assert told[1].startswith("32 records computed, 0 reused; store: ")
    there = "\n".join(told).replace(str(whole.lab.folder), str(spread.lab.folder))
    assert there in "\n".join(spread.result.outlines)


@pytest.fixture(scope="module")
def crashed(make_lab: MakeLab) -> Finished:
    """No option and no file at the top says that there are cells: only the worker finds them."""
    lab = make_lab()
    lab.install("crash-kv", {"crash": "crash_kv:Crash"}, crash_kv=CRASH)
    lab.install("broken-kv", {"broken": "no_such_module:Policy"}, version="0.3")
    settings = {**DEFAULTS, "--kv-model": lab.model, "--policy": "snapkv crash broken"}
    rows = (f"{flag.lstrip('-').replace('-', '_')} = {text}" for flag, text in settings.items())
    (lab.folder / "pytest.ini").write_text(INI + "\n".join(rows))
    command = ("-pno:hypothesispytest", "-n1", "--max-worker-restart=0", ".", "-kneedle")
    return Finished(lab, finish(lab.start(*command)))


def test_a_worker_that_crashes_is_reported(crashed: Finished) -> None:
    assert crashed.result.ret != pytest.ExitCode.OK
    told = "crashed while running 'suites/test_needle.py::test_needle[full-s1]'"
    assert (
        f"died inside policy 'crash', getting ready for seed 1: worker 'gw0' {told}" in crashed.text
    )
    assert "INTERNALERROR" not in crashed.text
    assert crashed.result.parseoutcomes()["passed"] == 5, "the other group is done"


def test_what_was_done_before_a_crash_is_shown_and_kept(crashed: Finished) -> None:
    assert sum(line.strip("=") == " kvharness " for line in crashed.result.outlines) == 1
    assert {record.seed for record in crashed.lab.records()} == {0}
    crashed.result.stdout.fnmatch_lines(["10 records computed, 0 reused; *"])
    result = crashed.lab.run()
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["8 records computed, 8 reused; *"])


def test_a_broken_package_is_one_error_whatever_the_workers(crashed: Finished) -> None:
    headings = [line for line in crashed.result.outlines if "collecting policy broken" in line]
    assert len(headings) == 1
    assert "policy 'broken': from broken-kv 0.3 cannot be loaded" in crashed.text


def test_a_usage_error_is_found_before_workers_start_to_run(lab: Lab) -> None:
    result = lab.run("-n2", "--kv-shard=3/2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --kv-shard '3/2': expected I/N*"])


def test_a_context_without_room_for_questions_is_refused_when_the_cells_are_known(
    lab: Lab,
) -> None:
    result = lab.spawn("-n1", "--kv-context=2045")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --kv-context 2045 and up to * tokens of question and*"])
    assert "Traceback" not in str(result.stderr)
    assert not list((lab.folder / "store").glob("*"))
