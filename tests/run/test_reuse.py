from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kvharness.records.store import Store
from kvharness.run.reuse import Shelf
from tests.records.test_store import HEADER
from tests.runs import RECORD

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def said() -> list[str]:
    return []


def a_shelf(directory: Path, said: list[str], *, fresh: bool = False) -> Shelf:
    return Shelf(directory, fresh=fresh, header=lambda: HEADER, say=said.append)


def test_one_finds_what_the_other_put(tmp_path: Path, said: list[str]) -> None:
    mine, other = a_shelf(tmp_path, said), a_shelf(tmp_path, said)
    assert mine.find() == {}
    other.put(RECORD)
    assert set(mine.find()) == {"k"}
    other.put(replace(RECORD, key="k2"))
    assert set(mine.find()) == {"k", "k2"}
    other.close()
    assert said == []


def test_the_store_is_read_only_when_it_has_grown(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = a_shelf(tmp_path, said)
    shelf.put(RECORD)
    assert set(shelf.find()) == {"k"}
    monkeypatch.setattr(Store, "read", None)
    assert set(shelf.find()) == {"k"}
    shelf.close()


def test_fresh_finds_nothing_and_still_stores(tmp_path: Path, said: list[str]) -> None:
    shelf = a_shelf(tmp_path, said, fresh=True)
    shelf.put(RECORD)
    shelf.close()
    assert shelf.find() == {}
    assert set(Store.read(tmp_path).by_key) == {"k"}


def test_a_damaged_line_is_told_once(tmp_path: Path, said: list[str]) -> None:
    shelf = a_shelf(tmp_path, said)
    shelf.put(RECORD)
    (file,) = tmp_path.glob("*.jsonl")
    with file.open("ab") as lines:
        lines.write(b"{damaged}\n")
    shelf.find()
    shelf.put(replace(RECORD, key="k2"))
    assert set(shelf.find()) == {"k", "k2"}
    assert len(said) == 1
    assert said[0].startswith("store: ")
    shelf.close()


def test_nothing_is_written_before_the_first_record(tmp_path: Path, said: list[str]) -> None:
    a_shelf(tmp_path / "store", said).close()
    assert list(tmp_path.iterdir()) == []
