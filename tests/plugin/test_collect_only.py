from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Lab

CONFTEST = """
import sys

def pytest_unconfigure(config):
    heavy = {"torch", "scipy", "transformers", "datasets"}
    print(f"\\nheavy: {sorted(heavy & set(sys.modules))}")
"""


def test_collecting_imports_nothing_heavy_and_leaves_nothing_behind(lab: Lab) -> None:
    (lab.folder / "conftest.py").write_text(CONFTEST)
    lab.install("broken-kv", {"broken": "no_such_module:Policy"})
    before = sorted(lab.folder.rglob("*"))
    result = lab.spawn(
        "--collect-only", "-q", "-pno:benchmark", "suites", PYTHONDONTWRITEBYTECODE="1"
    )
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["suites/test_needle.py::test_needle?snapkv-r0.25-s1?"])
    result.stdout.fnmatch_lines(["heavy: []"])
    assert sorted(lab.folder.rglob("*")) == before


def test_neither_a_model_nor_a_working_policy_is_needed_to_collect(lab: Lab) -> None:
    lab.install("broken-kv", {"broken": "no_such_module:Policy"})
    ids = lab.collect("--policy=broken", "--kv-model=no-such-model", "--kv-seeds=1")
    assert ids[-1] == "test_needle[broken-r0.25-s0]"


def test_the_header_counts_cells_and_groups(lab: Lab) -> None:
    result = lab.run("--collect-only", "suites")
    result.stdout.fnmatch_lines(
        ["kvharness: 24 cells in 6 groups of 2 items; *tiny, context 400, question unseen; *"]
    )
    result = lab.run("--collect-only", "suites", "--kv-hard")
    result.stdout.fnmatch_lines(["kvharness: 48 cells in 12 groups of 2 items; *"])


def test_the_suites_have_their_module_name_in_a_checkout_too(lab: Lab) -> None:
    result = lab.run("--pyargs", "kvharness.suites", "--collect-only", "-q", "-kneedle")
    assert result.ret == pytest.ExitCode.OK, str(result.stdout)
    result.stdout.fnmatch_lines(["*test_needle.py::test_needle?snapkv-r0.25-s1?"])
    assert not [line for line in result.outlines if "test_qa" in line]
