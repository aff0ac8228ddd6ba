"""The wheel has the suites: users without a checkout run them by package name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel of kvharness."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("kvharness-*.whl")
    target = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True)
    return target


def test_suites_run_from_the_wheel(site: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = ["--policy=position", "--retention=0.5", "-k", "needle", "--kv-seeds=1"]
    model = ["--kv-items=1", "--kv-context=400", f"--kv-model={tiny_model}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--pyargs", "kvharness.suites", *options, *model],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout, "full, floor, oracle, position and its baseline random"
    assert "FAILED" not in done.stdout, "its baseline sip has no weights for this model"
    assert "position-better-than-random  inconclusive" in done.stdout, "the wheel carries claims"
    assert list((tmp_path / ".kvharness").glob("*.jsonl"))


def test_wheel_has_data_types_and_licence(site: Path) -> None:
    package = site / "kvharness"
    assert (package / "py.typed").is_file()
    assert (package / "suites" / "test_speed.py").is_file()
    assert (package / "data" / "grammar" / "frames.txt").is_file()
    assert list(site.glob("kvharness-*.dist-info/licenses/LICENSE"))
