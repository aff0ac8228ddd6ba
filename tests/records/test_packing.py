from __future__ import annotations

import lzma
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from kvharness.errors import StoreProblem
from kvharness.records.packing import PACKED, pack
from kvharness.records.store import Store, Writer
from tests.records.test_store import HEADER, RECORD

if TYPE_CHECKING:
    from pathlib import Path


def test_a_packed_store_reads_as_it_was(tmp_path: Path) -> None:
    with Writer(tmp_path / "plain", HEADER) as writer:
        for number in range(30):
            writer.append(replace(RECORD, key=f"{number:032x}"))
    size = pack(tmp_path / "plain", tmp_path / "packed")
    (file,) = (tmp_path / "packed").iterdir()
    assert file.name.endswith(PACKED)
    assert file.stat().st_size == size
    assert Store.read(tmp_path / "packed") == Store.read(tmp_path / "plain")


@pytest.mark.parametrize("padding", [b"", bytes(8)])
def test_streams_that_stand_end_to_end_are_one_file(tmp_path: Path, padding: bytes) -> None:
    with Writer(tmp_path / "plain", HEADER) as writer:
        for number in range(30):
            writer.append(replace(RECORD, key=f"{number:032x}"))
    (file,) = (tmp_path / "plain").iterdir()
    whole = file.read_bytes()
    first, second = lzma.compress(whole[:2000]), lzma.compress(whole[2000:])
    (tmp_path / "packed").mkdir()
    packed = tmp_path / "packed" / f"{file.name}.xz"
    packed.write_bytes(first + padding + second + padding)
    assert Store.read(tmp_path / "packed") == Store.read(tmp_path / "plain")
    packed.write_bytes(first + b"junk")
    store = Store.read(tmp_path / "packed")
    assert 0 < len(store.by_key) < 30
    assert "damaged or not an xz file" in store.warnings[0]


def test_what_a_damaged_file_lost_is_told_by_its_name(tmp_path: Path) -> None:
    with Writer(tmp_path, HEADER) as writer:
        for number in range(900):
            writer.append(replace(RECORD, key=sha256(b"%d" % number).hexdigest()))
    pack(tmp_path, tmp_path / "packed")
    (file,) = (tmp_path / "packed").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-9000])
    cut = Store.read(tmp_path / "packed")
    assert 0 < len(cut.by_key) < 900
    (warning,) = cut.warnings
    assert warning.startswith(f"{file.name!r}: cut short: what follows is lost")
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes(50) + whole[middle + 50 :])
    assert (
        f"{file.name!r}: damaged or not an xz file" in Store.read(tmp_path / "packed").warnings[0]
    )


def test_junk_in_place_of_a_packed_file_leaves_the_others(tmp_path: Path) -> None:
    with Writer(tmp_path, HEADER) as writer:
        writer.append(RECORD)
    (tmp_path / "junk.jsonl.xz").write_bytes(b"no such format")
    store = Store.read(tmp_path)
    assert [*store.by_key] == [RECORD.key]
    (warning,) = store.warnings
    assert warning.startswith("'junk.jsonl.xz': damaged or not an xz file (")


def test_a_recording_that_was_added_to_is_packed_whole(tmp_path: Path) -> None:
    def write(folder: str, start: int) -> None:
        with Writer(tmp_path / folder, HEADER) as writer:
            for number in range(start, start + 3):
                writer.append(replace(RECORD, key=f"{number:032x}"))

    write("first", 0)
    pack(tmp_path / "first", tmp_path / "mixed")
    write("mixed", 3)
    size = pack(tmp_path / "mixed", tmp_path / "whole")
    assert Store.read(tmp_path / "whole") == Store.read(tmp_path / "mixed")
    assert len(Store.read(tmp_path / "whole").by_key) == 6
    assert size == sum(file.stat().st_size for file in (tmp_path / "whole").iterdir())


def test_a_file_that_grew_after_it_was_packed_is_packed_again(tmp_path: Path) -> None:
    with Writer(tmp_path / "store", HEADER) as writer:
        writer.append(replace(RECORD, key="a" * 32))
        pack(tmp_path / "store", tmp_path / "store")
        writer.append(replace(RECORD, key="b" * 32))
    pack(tmp_path / "store", tmp_path / "packed")
    assert {*Store.read(tmp_path / "packed").by_key} == {"a" * 32, "b" * 32}


def test_nothing_to_pack(tmp_path: Path) -> None:
    with pytest.raises(StoreProblem, match=r"holds no \.jsonl files"):
        pack(tmp_path, tmp_path / "packed")


def test_a_folder_that_cannot_be_packed_into(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("{}")
    (tmp_path / "packed").write_text("a file")
    with pytest.raises(StoreProblem, match="cannot pack"):
        pack(tmp_path, tmp_path / "packed")
