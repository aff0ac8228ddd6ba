"""A policy from `kvharness new-policy` to verdicts: all of it from wheels, none from this tree."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CELL = (
    *("-k", "needle", "--policy=written", "--retention=0.25", "--kv-seeds=1", "--kv-items=1"),
    *("--kv-context=400", "--kv-generate=none"),
)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a virtual environment of their own, in an empty folder."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "env" / "bin"

    def run(self, command: str, *arguments: object, below: str = "") -> str:
        """What a command of the environment prints in a folder; it has to succeed."""
        ours = ("PYTHON", "PYTEST", "KVHARNESS")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        # The tensors are tiny; on a busy machine more threads would wait for each other.
        own = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [self.bin / command, *map(str, arguments)],
            cwd=self.folder / below,
            env={**inherited, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, project: Path) -> None:
        """Its wheel, offline."""
        wheels = self.folder / "wheels" / project.name
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        subprocess.run(build, cwd=project, check=True, capture_output=True)
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install"]
        options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *options, *map(str, wheels.glob("*.whl"))], check=True)

    def borrow_libraries(self) -> None:
        """Let the environment see torch, pytest and the rest of this one.

        Its own packages come first, and editable ones of this environment are not followed.
        """
        (packages,) = (self.folder / "env").glob("lib/python*/site-packages")
        (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    """A user who wrote, built and installed a package."""
    user = User(tmp_path_factory.mktemp("user"))
    venv.create(user.folder / "env", symlinks=True)
    # Before the libraries: pip would find this environment's own and be content with them.
    user.install(ROOT)
    user.install(ROOT / "policies")
    user.borrow_libraries()
    user.run("kvharness", "new-policy", "written")
    user.install(user.folder / "written")
    return user


@pytest.mark.parametrize("module", ["kvharness", "kvharness_policies", "kvharness_written"])
def test_modules_come_from_the_wheels(user: User, module: str) -> None:
    place = user.run("python", "-c", f"import {module}; print({module}.__file__)").strip()
    assert Path(place).is_relative_to(user.folder)


def test_the_policy_is_listed(user: User) -> None:
    (line,) = [row for row in user.run("kvharness", "policies").splitlines() if "written" in row]
    assert "kvharness-written 0.1.0" in line
    assert "ready" in line


def test_a_cell_runs_and_its_claim_is_judged(user: User, tiny_model: Path) -> None:
    suites = ("--pyargs", "kvharness.suites", *CELL, f"--kv-model={tiny_model}")
    out = user.run("python", "-m", "pytest", *suites)
    assert "written-better-than-random" in out
    # The policy, what it is compared with, and the three anchors.
    assert "5 passed" in out
    verdicts = user.run("kvharness", "claims", ".kvharness").splitlines()
    (line,) = [row for row in verdicts if row.startswith("written-better-than-random")]
    assert "inconclusive" in line


def test_the_policy_conforms(user: User) -> None:
    kit = ("-m", "pytest", "--pyargs", "kvharness.testing", "--policy=written")
    assert "passed" in user.run("python", *kit)


def test_the_package_passes_its_own_tests(user: User) -> None:
    # The test before this one ran every check.
    some = ("-k", "exact_budget or not conforms")
    assert "5 passed" in user.run("python", "-m", "pytest", *some, below="written")


def test_the_package_is_typed(user: User) -> None:
    pytest.importorskip("mypy")
    assert "Success" in user.run("python", "-m", "mypy", below="written")
