"""Training text: files, folders or data sets that the user names, as documents with a digest."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvharness.errors import DataProblem
from kvharness.items.real.files import read_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_PLAIN = (".txt", ".md")
_BREAK = re.compile(r"\n\s*\n")
_COLUMN = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text with a name for messages; its paragraphs are separated by empty lines."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Documents in the order of their sources."""

    documents: tuple[Document, ...]

    @classmethod
    def read(cls, sources: Sequence[str]) -> Corpus:
        """Text files, folders of them, or rows with a ``text`` column.

        A folder gives its ``.txt`` and ``.md`` files in the order of their names. ``.json``,
        ``.jsonl`` and ``.parquet`` files and Hub data sets are read with `datasets`.

        Raises:
            DataProblem: a source is missing, unreadable, or holds no text.
        """
        documents = tuple(document for source in sources for document in _read(source))
        if not documents:
            raise DataProblem(f"{', '.join(sources) or 'no source'}: holds no text to train on")
        return cls(documents=documents)

    @property
    def digest(self) -> str:
        """16 hex digits over the texts in their order."""
        total = hashlib.sha256()
        for document in self.documents:
            total.update(document.text.encode() + b"\0")
        return total.hexdigest()[:16]


def paragraphs(text: str) -> Iterator[str]:
    """Each paragraph on one line, since printed books break lines where a page was full."""
    for block in _BREAK.split(text):
        joined = " ".join(block.split())
        if joined:
            yield joined


def _read(source: str) -> Iterable[Document]:
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _PLAIN)
        return [_plain(file) for file in files] if files else _rows(source)
    return [_plain(path)] if path.is_file() and path.suffix in _PLAIN else _rows(source)


def _plain(file: Path) -> Document:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataProblem(f"{file}: is not UTF-8 text ({error.reason}); convert it") from None
    except OSError as error:
        raise DataProblem(f"{file}: cannot be read ({error.strerror})") from None
    return Document(name=file.name, text="\n\n".join(paragraphs(text)))


def _rows(source: str) -> Iterator[Document]:
    for name, row in read_records(source):
        text = row.get(_COLUMN)
        if not isinstance(text, str):
            fields = ", ".join(sorted(map(str, row))) or "none"
            raise DataProblem(f"{name}: expected text in a field {_COLUMN!r}, found {fields}")
        yield Document(name=name, text="\n\n".join(paragraphs(text)))
