from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kvharness.cli.main import main
from tests.runs import SETTINGS, a_record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runs import Keep

OTHER = {**SETTINGS["contract"], "context": 200}
DECODING = {**SETTINGS["contract"], "evict": "decode"}


def test_means_and_intervals(
    tmp_path: Path, keep: Keep, capsys: pytest.CaptureFixture[str]
) -> None:
    for item in range(3):
        name = f"needle-s0-{item:02d}"
        metrics = {"exact": item / 2, "nll": 1.0}
        keep(
            a_record(name, item=name, item_digest=name, metrics=metrics),
            a_record(f"full-{name}", policy="full", retention=None, item=name, item_digest=name),
        )
    assert main(["show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    # Scores 0, 0.5, 1: mean 0.5, standard error 0.2887, t(0.975, 2) = 4.3027.
    assert "0.50 ±1.24" in out
    assert "full" in out


def test_older_settings_are_left_out(
    tmp_path: Path, keep: Keep, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(a_record("old"))
    keep(a_record("new"), second=9, contract=OTHER)
    assert main(["show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "context 200" in out
    assert "context 400" not in out
    assert "1 records of other settings are left out" in out


def test_another_time_of_eviction(
    tmp_path: Path, keep: Keep, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(a_record("old"))
    keep(a_record("new"), second=9, contract=DECODING)
    for given, mode in (([], "prefill"), (["--evict=decode"], "decode")):
        assert main(["show", str(tmp_path), *given]) == 0
        assert f"evict {mode}" in capsys.readouterr().out
    assert main(["show", str(tmp_path), "--evict=blocks"]) == 2
    assert "no record is of --kv-evict=blocks; there are some of" in capsys.readouterr().err


def test_the_store_of_a_run_in_this_folder_is_the_default(
    tmp_path: Path,
    keep: Keep,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep(a_record("one"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".kvharness").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(tmp_path / "work")
    assert main(["show"]) == 0
    assert "needle: mean exact" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "", "not json\n"])
def test_what_is_wrong_is_told_without_a_traceback(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "a.jsonl").write_text(content)
    assert main(["show", str(tmp_path)]) == 2
    assert "no records" in capsys.readouterr().err


def test_it_imports_no_torch(tmp_path: Path, keep: Keep) -> None:
    keep(a_record("one"))
    code = (
        "import sys; from kvharness.cli.main import main; status = main(['show', sys.argv[1]]); "
        "sys.exit(status or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 0
