from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from kvharness.isolation.last_words import BlackBox

if TYPE_CHECKING:
    from pathlib import Path

WORKER = {"testrunuid": "abc", "workerid": "gw3"}
DIES = """
import os, sys
from pathlib import Path
from kvharness.isolation.last_words import BlackBox

with BlackBox(Path(sys.argv[1])).during("policy 'mine' on needle-s0-00"):
    os._exit(9)
"""


def test_what_a_dead_process_did_is_found_once(tmp_path: Path) -> None:
    path = tmp_path / "box"
    assert subprocess.run([sys.executable, "-c", DIES, path], check=False).returncode == 9
    assert BlackBox(path).take() == "policy 'mine' on needle-s0-00"
    assert BlackBox(path).take() == ""
    assert not path.exists()


def test_nothing_is_left_of_code_that_returns_or_raises(tmp_path: Path) -> None:
    box = BlackBox(tmp_path / "box")
    with box.during("well"):
        pass
    with pytest.raises(ZeroDivisionError), box.during("not so well"):
        raise ZeroDivisionError
    assert box.take() == ""


def test_both_ends_of_a_worker_know_its_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with BlackBox.of(WORKER).during("policy 'mine'"):
        assert BlackBox.of({**WORKER, "workerid": "gw4"}).take() == ""
        assert BlackBox.of(WORKER).take() == "policy 'mine'"
    assert list(tmp_path.iterdir()) == []


def test_without_a_worker_or_a_place_nothing_is_noted(tmp_path: Path) -> None:
    for box in (BlackBox.of(None), BlackBox(tmp_path / "missing" / "box")):
        with box.during("policy 'mine'"):
            assert box.take() == ""
    assert list(tmp_path.iterdir()) == []
