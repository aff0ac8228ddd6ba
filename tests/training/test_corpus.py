from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kvharness.errors import DataProblem
from kvharness.training.corpus import Corpus, paragraphs

if TYPE_CHECKING:
    from pathlib import Path


def texts(*sources: Path) -> list[str]:
    return [document.text for document in Corpus.read([str(each) for each in sources]).documents]


def test_lines_of_a_paragraph_are_joined() -> None:
    printed = "It was\na dark   night.\n\n\n  The wind\nhowled. \n \nEnd"
    assert list(paragraphs(printed)) == ["It was a dark night.", "The wind howled.", "End"]


def test_a_file_is_a_document_and_a_folder_several(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("two\nlines")
    (tmp_path / "a.md").write_text("\ufeffone")
    (tmp_path / "c.csv").write_text("no text")
    assert texts(tmp_path) == ["one", "two lines"]
    assert texts(tmp_path / "b.txt", tmp_path / "a.md") == ["two lines", "one"]


def test_rows_have_their_text_in_a_field(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"text": text, "id": 1}) for text in ("x\ny", "z")))
    assert texts(file) == ["x y", "z"]


def test_the_digest_is_of_texts_in_order_and_not_of_names(tmp_path: Path) -> None:
    for name, text in (("a.txt", "one"), ("b.txt", "two"), ("c.txt", "one")):
        (tmp_path / name).write_text(text)

    def digest(*names: str) -> str:
        return Corpus.read([str(tmp_path / name) for name in names]).digest

    assert digest("a.txt", "b.txt") == digest("c.txt", "b.txt")
    assert len({digest("a.txt"), digest("a.txt", "b.txt"), digest("b.txt", "a.txt")}) == 3


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "rows.jsonl").write_text('{"body": "x"}\n')
    (tmp_path / "empty.txt").write_text(" \n")
    for name, message in (
        ("latin.txt", r"latin.txt: is not UTF-8 text"),
        ("rows.jsonl", r"rows.jsonl line 1: expected text in a field 'text', found body"),
        ("missing.txt", r"missing.txt"),
    ):
        with pytest.raises(DataProblem, match=message):
            Corpus.read([str(tmp_path / name)])
    with pytest.raises(DataProblem, match="no source: holds no text"):
        Corpus.read([])
