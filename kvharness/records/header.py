"""Where records come from: library versions, machine, git state, and the header that says so."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kvharness.contract import Anchor

_PACKAGES = ("kvharness", "torch", "transformers", "numpy")
_CPUINFO = Path("/proc/cpuinfo")
_GIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is true of all records of one file: who wrote them, where, with which settings."""

    run: str
    created: str
    versions: dict[str, str]
    machine: dict[str, Any]
    git: dict[str, Any]
    settings: dict[str, Any]

    @property
    def oracles(self) -> frozenset[str]:
        """Policies that know the true answers: they are controls, and never ranked.

        Recordings of before there were others name none but `Anchor.ORACLE`, which always is one.
        """
        return frozenset({Anchor.ORACLE.value, *self.settings.get("oracles", ())})

    @classmethod
    def create(cls, settings: dict[str, Any]) -> Header:
        """The header of this process, now; ``settings`` holds builtins only."""
        return cls(
            run=secrets.token_hex(8),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions(),
            machine=machine(),
            git=git_state(Path()),
            settings=settings,
        )


def versions() -> dict[str, str]:
    """Python's and the packages' versions, from their metadata: nothing is imported."""
    found = {name: _installed(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        **{name: text for name, text in found.items() if text is not None},
    }


def machine() -> dict[str, object]:
    return {
        "platform": platform.platform(),
        "processor": _processor(_CPUINFO),
        "cores": os.cpu_count(),
    }


def git_state(directory: Path) -> dict[str, object]:
    """The commit of ``directory`` and whether tracked files differ from it.

    Untracked files do not count as dirty: a run leaves its own outputs behind. ``commit`` is None
    before the first one.

    Returns:
        ``{"commit": ..., "dirty": ...}``; empty without git, without a repository, or where git
        does not answer in time.
    """
    output = _git_status(directory)
    if output is None:
        return {}
    lines = output.splitlines()
    head = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), None)
    return {
        "commit": None if head == "(initial)" else head,
        "dirty": any(not line.startswith("#") for line in lines),
    }


def _installed(name: str) -> str | None:
    try:
        # None where a broken installation has metadata without a version.
        return version(name) or None
    except PackageNotFoundError:
        return None


def _processor(cpuinfo: Path) -> str:
    """The processor's name; only the architecture where the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def _git_status(directory: Path) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    status = ["status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            [git, "-C", str(directory), *status],
            # Without the optional lock, a user's own git command never fails because of ours.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
