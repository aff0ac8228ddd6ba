"""Every policy on the embedded model in its default dtype: the kit draws tiny ones in float32."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvharness.discovery.registry import installed

NEEDLE = Path(__file__).parents[2] / "suites" / "test_needle.py"


@pytest.mark.slow
def test_every_policy_runs_on_the_embedded_model(tmp_path: Path) -> None:
    wrapped = [f"{name}(snapkv)" for name, found in installed().items() if found.wraps]
    options = ("--retention=0.25", "--kv-seeds=1", "--kv-items=1", "--kv-generate=none")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(NEEDLE), "-pno:cacheprovider", "-q"),
            f"--policy={','.join(['all', *wrapped])}",
            *options,
            *("--kv-claims=off", f"--kv-store={tmp_path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    passed = len(installed())
    assert f"{passed} passed" in done.stdout
