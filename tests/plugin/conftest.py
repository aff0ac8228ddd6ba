"""A folder with the suites and a store, and pytest run there: in this process or its own."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from kvharness.records.record import Seconds
from kvharness.records.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kvharness.records.record import Record

SUITES = Path(__file__).parents[2] / "suites"
INI = """
[pytest]
kv_claims = off
addopts = --strict-markers --strict-config --import-mode=importlib -p no:cacheprovider
filterwarnings =
    error
    ignore:builtin type .* has no __module__ attribute:DeprecationWarning
    ignore:Benchmarks are automatically disabled
"""
#: Small enough that a cell takes milliseconds; what a test gives itself comes in their place.
DEFAULTS = {
    "--policy": "snapkv",
    "--retention": "0.25",
    "--kv-context": "400",
    "--kv-seeds": "2",
    "--kv-items": "2",
    "--kv-dtype": "float32",
    "--kv-generate": "none",
    "--kv-store": "store",
}
WHOLE = ("--policy=snapkv,random", "--retention=0.25,0.5")
SECONDS = 300


class Lab:
    """A rootdir of its own; ``site`` is on the path of every run, for fake packages."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.site.mkdir(parents=True)
        self.model = model
        shutil.copytree(SUITES, folder / "suites", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "pytest.ini").write_text(INI)

    def arguments(self, *given: str) -> list[str]:
        """Of pytest: what is given, then the defaults of what is not; options in one word each."""
        options = {**DEFAULTS, "--kv-model": str(self.model)}
        unset = [f"{k}={v}" for k, v in options.items() if not any(g.startswith(k) for g in given)]
        paths = [] if any(not each.startswith("-") for each in given) else ["suites/test_needle.py"]
        # Its summary hook imports all of Hypothesis, a second or two in each process.
        return ["-pno:hypothesispytest", *given, *unset, *paths]

    def run(self, *given: str) -> pytest.RunResult:
        """In this process, where torch is imported already."""
        return self.main(*self.arguments(*given))

    def main(self, *arguments: str) -> pytest.RunResult:
        """In this process, with these arguments alone."""
        _warm_up()
        out, err = io.StringIO(), io.StringIO()
        start = time.perf_counter()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.delenv("PYTEST_ADDOPTS", raising=False)
            patch.chdir(self.folder)
            patch.syspath_prepend(self.site)
            try:
                # It collects garbage five times at its end, half a second where torch is loaded.
                code = pytest.main(["-pno:unraisableexception", *arguments])
            finally:
                self._forget()
        lines = out.getvalue().splitlines(), err.getvalue().splitlines()
        return pytest.RunResult(code, *lines, time.perf_counter() - start)

    def _forget(self) -> None:
        """Another run imports this folder's modules again."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(self.folder)):
                del sys.modules[name]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """In a process of its own, with these arguments alone."""
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=self.folder,
            env=self.environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def spawn(self, *given: str, **environment: str) -> pytest.RunResult:
        """In a process of its own, until it ends."""
        return finish(self.start(*self.arguments(*given), **environment))

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        ours = ("PYTEST", "KVHARNESS", "CUDA", "COV")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        return {**inherited, "PYTHONPATH": str(self.site), "HF_HUB_OFFLINE": "1", **extra}

    def collect(self, *given: str) -> list[str]:
        """The ids that ``--collect-only`` lists, without their files."""
        result = self.run("--collect-only", "-q", *given)
        assert result.ret in {0, 5}, str(result.stdout)
        return [line.partition("::")[2] for line in result.outlines if "::" in line]

    def records(self, store: str = "store") -> list[Record]:
        return [stored.record for stored in Store.read(self.folder / store).by_key.values()]

    def lines(self, store: str = "store") -> Counter[str]:
        """How many record lines each file of a store holds."""
        files = (self.folder / store).glob("*.jsonl")
        return Counter({file.name: file.read_bytes().count(b"\n") - 1 for file in files})

    def install(
        self,
        name: str,
        entries: Mapping[str, str],
        *,
        version: str = "1.0",
        claims: Mapping[str, str] | None = None,
        **modules: str,
    ) -> None:
        """Put a distribution with policies, and claims files, on the path, as pip would."""
        info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        groups = {"kvharness.policies": entries, "kvharness.claims": claims or {}}
        (info / "entry_points.txt").write_text(
            "".join(
                f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in given.items())
                for group, given in groups.items()
            )
        )
        for module, source in modules.items():
            (self.site / f"{module}.py").write_text(source)
        (info / "RECORD").write_text("".join(f"{module}.py,,\n" for module in modules))


class MakeLab(Protocol):
    def __call__(self) -> Lab: ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that several tests look at."""

    lab: Lab
    result: pytest.RunResult

    @property
    def text(self) -> str:
        return "\n".join([*self.result.outlines, *self.result.errlines])


def finish(process: subprocess.Popen[str]) -> pytest.RunResult:
    start = time.perf_counter()
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"no end after {SECONDS} s:\n{out}\n{err}")
    code, seconds = process.returncode, time.perf_counter() - start
    return pytest.RunResult(code, out.splitlines(), err.splitlines(), seconds)


def stable(records: Iterable[Record]) -> dict[str, Record]:
    """Records by key, without their timings."""
    never = Seconds(prefill=0.0, select=0.0, decode=0.0)
    return {record.key: replace(record, seconds=never) for record in records}


@cache
def _warm_up() -> None:
    """Import everything heavy once: a run forgets nothing but its own folder's modules."""
    for name in (
        "kvharness.model.loaded",
        "kvharness.engine.item_run",
        "kvharness.run.runner",
        "kvharness.report.terminal",
    ):
        import_module(name)


@pytest.fixture(scope="session")
def make_lab(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> MakeLab:
    return lambda: Lab(tmp_path_factory.mktemp("lab", numbered=True) / "root", tiny_model)


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab()


@pytest.fixture(scope="session")
def whole(make_lab: MakeLab) -> Finished:
    """An uninterrupted run in one process, with which the others are compared."""
    lab = make_lab()
    return Finished(lab, lab.run(*WHOLE))
