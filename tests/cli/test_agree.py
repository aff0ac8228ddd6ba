from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.cli.main import main
from tests.claims.conftest import CONTRACT, Made

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_where_the_stores_lack_something_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = Made(seeds=2).run("snapkv", "0.25").drop(policy="snapkv", seed=1)
    fresh = Made(seeds=1).run("snapkv", "0.25").run("random", "0.25")
    fresh.drop(policy="snapkv", seed=0, items=[3, 4])
    stores = [str(made.write(tmp_path / n)) for n, made in (("A", recorded), ("B", fresh))]
    assert main(["agree", *stores]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"{stores[0]}: qa snapkv-r0.25: 1 of 2 seeds are incomplete",
        f"{stores[1]}: qa snapkv-r0.25: 1 of 1 seeds are incomplete",
        f"12 records of {stores[1]} are not in {stores[0]}",
    ]
    assert lines[3] == "10 records compared, 0 kept other entries"


def test_of_whole_stores_nothing_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = [str(Made(seeds=1).run("snapkv", "0.25").write(tmp_path / name)) for name in "AB"]
    assert main(["agree", *stores]) == 0
    assert capsys.readouterr().out.startswith("12 records compared")


def test_stores_of_other_modes_say_nothing_of_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = Made(seeds=1).run("snapkv", "0.25").write(tmp_path / "A")
    decoding = {**CONTRACT, "evict": "decode"}
    fresh = Made(seeds=1, contract=decoding).run("snapkv", "0.25").write(tmp_path / "B")
    assert main(["agree", str(recorded), str(fresh)]) != 0
    told = capsys.readouterr()
    assert f"{recorded} is of --kv-evict=prefill and {fresh} of --kv-evict=decode" in told.err
    assert "records compared" not in told.out
