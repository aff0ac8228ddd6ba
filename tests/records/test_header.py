from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from kvharness.records import header as header_module
from kvharness.records.header import Header, git_state, machine, versions

if TYPE_CHECKING:
    from pathlib import Path


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Set where pytest runs inside a git hook.
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "policy.py").write_text("one")
    return tmp_path


def test_versions_come_without_imports() -> None:
    code = (
        "import json, sys; from kvharness.records.header import versions; found = versions();"
        "print(json.dumps([found, sorted({'torch', 'transformers', 'numpy'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found, imported = json.loads(done.stdout)
    assert set(found) == {"python", "kvharness", "torch", "transformers", "numpy"}
    assert imported == []


def test_a_package_that_is_not_installed_is_omitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_module, "_PACKAGES", ("kvharness-not-installed",))
    assert versions() == {"python": platform.python_version()}


def test_a_package_without_a_version_is_omitted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info" / "METADATA").write_text("Name: broken\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(header_module, "_PACKAGES", ("broken",))
    assert set(versions()) == {"python"}


def test_the_machine_is_described() -> None:
    described = machine()
    assert set(described) == {"platform", "processor", "cores"}
    assert described["cores"] == os.cpu_count()
    assert described["processor"]


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Fast CPU: 3 GHz\nmodel name\t: Other", "Fast CPU: 3 GHz"),
        ("model name\t:\n", platform.machine()),
        ("Hardware: arm", platform.machine()),
        (None, platform.machine()),
    ],
)
def test_the_processor_falls_back_to_the_architecture(
    tmp_path: Path, cpuinfo: str | None, expected: str
) -> None:
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    assert header_module._processor(path) == expected


def test_git_state_before_the_first_commit(repository: Path) -> None:
    assert git_state(repository) == {"commit": None, "dirty": False}


def test_git_state_of_a_commit(repository: Path) -> None:
    git(repository, "add", "policy.py")
    git(repository, "commit", "--quiet", "-m", "one")
    clean = {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}
    assert git_state(repository) == clean
    (repository / "records.jsonl").write_text("untracked")
    assert git_state(repository) == clean
    (repository / "policy.py").write_text("two")
    assert git_state(repository) == clean | {"dirty": True}


def test_git_state_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GIT_DIR", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == {}
    assert git_state(tmp_path / "missing") == {}


def test_git_state_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert git_state(repository) == {}


def test_git_state_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(header_module, "_GIT_SECONDS", 0.2)
    assert git_state(tmp_path) == {}


def test_a_header_is_of_this_process() -> None:
    header = Header.create({"context": 1024})
    assert header.settings == {"context": 1024}
    assert header.versions == versions()
    assert header.run != Header.create({}).run
    assert json.loads(json.dumps(asdict(header))) == asdict(header)
