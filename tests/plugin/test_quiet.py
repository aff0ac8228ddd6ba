"""The plugin loads into every pytest run of a machine, where it must not be noticed."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kvharness.settings.table import settings_of

if TYPE_CHECKING:
    from tests.plugin.conftest import Lab

#: Prints what was imported, after all plugins have had their say.
CONFTEST = """
import sys

def pytest_unconfigure(config):
    heavy = {"torch", "scipy", "numpy", "transformers", "datasets", "tqdm"}
    heavy.add("kvharness.plugin.session")
    print(f"\\nheavy: {sorted(heavy & set(sys.modules))}")
"""
TESTS = """
import pytest

def test_passes():
    pass

@pytest.mark.xfail(strict=True)
def test_fails():
    assert 1 == 2
"""
STRICT = ("--strict-markers", "--strict-config", "-Werror", "-pno:cacheprovider")
NO_XDIST = """
import sys

sys.modules["xdist"] = None
"""
#: Of those that every pytest run imports: our package, and lazy_loader.
OWN_MODULES = 9


@pytest.fixture
def strangers(pytester: pytest.Pytester) -> pytest.Pytester:
    """Tests that have nothing to do with us."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    pytester.makepyfile(no_xdist=NO_XDIST)
    return pytester


def files(strangers: pytest.Pytester) -> list[str]:
    """All but what pytester and pytest-benchmark write."""
    found = (str(path.relative_to(strangers.path)) for path in strangers.path.rglob("*"))
    theirs = ("runpytest-", "std", ".benchmarks")
    return sorted(name for name in found if not name.startswith(theirs))


def shown(result: pytest.RunResult) -> list[str]:
    """What a run printed, but for its list of plugins and its duration."""
    lines = [*result.outlines, *result.errlines]
    return [re.sub(r"in [\d.]+s", "", line) for line in lines if not line.startswith("plugins:")]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-pno:xdist",),
        ("-nauto", "-pno:benchmark"),
    ],
    ids=" ".join,
)
def test_a_run_without_cells_is_as_without_the_plugin(
    strangers: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = files(strangers)
    ours = strangers.runpytest_subprocess(*STRICT, *options)
    assert files(strangers) == before, "nothing was written"
    theirs = strangers.runpytest_subprocess(*STRICT, *options, "-pno:kvharness")
    assert shown(ours) == shown(theirs)
    ours.assert_outcomes(passed=1, xfailed=1)
    ours.stdout.fnmatch_lines(["heavy: []"])
    assert ours.ret == pytest.ExitCode.OK


def test_the_plugin_loads_by_its_module_name_where_xdist_is_missing(
    strangers: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(strangers.path))
    result = strangers.runpytest_subprocess(*STRICT, "-pno_xdist", "-pkvharness.plugin")
    result.assert_outcomes(passed=1, xfailed=1)
    result.stdout.fnmatch_lines(["heavy: []"])


def test_its_markers_and_options_are_documented(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.kv_suite(name): *", "@pytest.mark.kv_speed: *"])
    result = pytester.runpytest_inprocess("--help")
    result.stdout.fnmatch_lines(["KV-cache compression benchmarks (kvharness):"])
    for setting in settings_of():
        result.stdout.fnmatch_lines([f"  {setting.flag}*"])
        result.stdout.fnmatch_lines([f"  {setting.name} (*"])


def test_ini_values_in_a_project_leave_its_other_tests_alone(strangers: pytest.Pytester) -> None:
    strangers.makeini("[pytest]\nkv_seeds = 3\nkv_model = no-such-model\n")
    result = strangers.runpytest_subprocess(*STRICT, "-n1", "-pno:benchmark")
    result.assert_outcomes(passed=1, xfailed=1)
    result.stdout.fnmatch_lines(["heavy: []"])
    assert "kvharness:" not in str(result.stdout)


def test_cells_run_without_xdist_and_benchmark(lab: Lab) -> None:
    lab.run("-pno:xdist", "--kv-seeds=1").assert_outcomes(passed=4)
    lab.run("-pno:benchmark", "--kv-seeds=1", "-Werror").assert_outcomes(passed=4)


def test_cells_run_with_nothing_but_this_plugin(lab: Lab) -> None:
    (lab.site / "no_xdist.py").write_text(NO_XDIST)
    result = lab.spawn(
        "-pno_xdist", "-pkvharness.plugin", "--kv-seeds=1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"
    )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["8 records computed, 0 reused; store: *"])


def test_importing_the_plugin_imports_little() -> None:
    """Its modules and the standard library's, so that it takes some milliseconds."""
    code = (
        "import sys, pytest; before = set(sys.modules); import kvharness.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    new = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    others = [name for name in new if name.partition(".")[0] not in sys.stdlib_module_names]
    assert len(others) <= OWN_MODULES, others
    assert {name.partition(".")[0] for name in others} == {"kvharness", "lazy_loader"}
