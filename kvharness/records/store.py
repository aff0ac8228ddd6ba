"""The append-only store: a directory of JSON-lines files, one for each process that wrote."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from filelock import FileLock

from kvharness.errors import StoreProblem
from kvharness.records import schema
from kvharness.records.header import Header
from kvharness.records.packing import PACKED, content
from kvharness.records.schema import INVALID, SCHEMA, NotJsonError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvharness.records.record import Record

__all__ = ["SCHEMA", "Header", "Store", "Stored", "Writer", "check_writable", "group_lock"]


class Writer:
    """Appends records to a file of its own, which appears with the first of them.

    A line is one write to a file opened for appending, so a killed process loses at most the
    record that it was writing.
    """

    def __init__(self, directory: Path, header: Header) -> None:
        self._directory = directory
        try:
            self._header = schema.encode_header(header)
        except INVALID as error:
            msg = f"the header of a store cannot be written: {error}"
            raise StoreProblem(msg) from error
        self._file: int | None = None
        self._torn = False

    def append(self, record: Record) -> None:
        """Store ``record``; it is readable by others when this returns.

        Raises:
            StoreProblem: the directory cannot be written, or the record holds what JSON cannot.
        """
        line = _encoded(record)
        with _explained("write to", self._directory):
            if self._file is None:
                self._file = self._create()
            self._write(self._file, line)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with _explained("write to", self._directory):
                os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create(self) -> int:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / _file_name()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        try:
            _write_all(file, self._header)
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        return file

    def _write(self, file: int, line: bytes) -> None:
        # What a failed write left of its line must not swallow the next record.
        start = b"\n" if self._torn else b""
        self._torn = True
        _write_all(file, start + line)
        self._torn = False


def check_writable(directory: Path) -> None:
    """Raise StoreProblem before hours of work rather than after; creates nothing."""
    with (
        _explained("write to", directory),
        tempfile.TemporaryFile(dir=_nearest_existing(directory), buffering=0) as probe,
    ):
        probe.write(b"\n")


@dataclass(frozen=True, slots=True)
class Stored:
    """A record and the header of its file."""

    record: Record
    header: Header


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """What a directory holds; of several records with one key, the last read."""

    by_key: dict[str, Stored]
    headers: tuple[Header, ...]
    warnings: tuple[str, ...]

    @classmethod
    def read(cls, directory: Path) -> Store:
        """Read all files of ``directory`` in the order of their names.

        A missing directory is an empty store. The line that a killed process left unfinished is
        skipped silently, any other bad line, and what a damaged packed file lost, with a warning.

        Raises:
            StoreProblem: a file cannot be read or is of another schema.
        """
        files = [_read_file(path) for path in _files(directory)]
        return cls(
            by_key={stored.record.key: stored for file in files for stored in file.stored},
            headers=tuple(header for file in files for header in file.headers),
            warnings=tuple(warning for file in files for warning in file.warnings),
        )


@contextmanager
def group_lock(directory: Path, group: str) -> Iterator[None]:
    """Wait until no other process computes ``group``; the system releases a killed holder's.

    Raises:
        StoreProblem: the lock cannot be taken in this directory.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", group)[:60]
    digest = hashlib.sha256(group.encode(errors="surrogatepass")).hexdigest()[:12]
    path = directory / ".locks" / f"{slug}-{digest}.lock"
    with _explained("lock a group in", directory):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class _File:
    headers: tuple[Header, ...] = ()
    stored: tuple[Stored, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    raw: bytes
    last: bool
    ended: bool

    def is_torn(self, error: Exception) -> bool:
        """Whether ``error`` is what a writer that was killed leaves behind."""
        return self.last and (not self.ended or isinstance(error, NotJsonError))


def _files(directory: Path) -> list[Path]:
    with _explained("read", directory):
        try:
            paths = sorted(directory.iterdir())
        except FileNotFoundError:
            return []
        return [path for path in paths if path.name.endswith((".jsonl", PACKED)) and path.is_file()]


def _read_file(path: Path) -> _File:
    with _explained("read", path):
        raw, problem = content(path)
    runs = [_parsed(path, lines) for lines in _by_run(_lines(raw))]
    return _File(
        headers=tuple(header for run in runs for header in run.headers),
        stored=tuple(each for run in runs for each in run.stored),
        warnings=(
            *([f"{path.name!r}: {problem}"] if problem else []),
            *(warning for run in runs for warning in run.warnings),
        ),
    )


def _parsed(path: Path, lines: list[_Line]) -> _File:
    if not lines:
        return _File()
    first, *rest = lines
    try:
        header = schema.decode_header(first.raw, str(path))
    except INVALID as error:
        if first.is_torn(error):
            return _File()
        lost = f"no valid header, so its {len(rest)} other lines are not used"
        return _File(warnings=(f"{_place(path, first)}: {lost} ({error})",))
    return _read_records(path, header, rest)


def _read_records(path: Path, header: Header, lines: list[_Line]) -> _File:
    stored, warnings = [], []
    for line in lines:
        try:
            record = schema.decode_record(line.raw)
        except INVALID as error:
            if not line.is_torn(error):
                warnings.append(f"{_place(path, line)}: skipped ({error})")
        else:
            stored.append(Stored(record, header))
    return _File((header,), tuple(stored), tuple(warnings))


def _by_run(lines: list[_Line]) -> list[list[_Line]]:
    """A header and its records, for each of the files that were put end to end."""
    runs: list[list[_Line]] = []
    for line in lines:
        if not runs or line.raw.startswith(schema.HEADER_START):
            runs.append([])
        runs[-1].append(line)
    return runs


def _lines(content: bytes) -> list[_Line]:
    """The lines that are not blank; a header begins one also behind a line that was cut short."""
    start = schema.HEADER_START
    rows = [
        (number, piece)
        for number, raw in enumerate(content.split(b"\n"), 1)
        for piece in raw.replace(start, b"\n" + start).split(b"\n")
        if piece.strip()
    ]
    ended = content.endswith(b"\n")
    return [_Line(number, raw, number == rows[-1][0], ended) for number, raw in rows]


def _place(path: Path, line: _Line) -> str:
    return f"{path.name!r}, line {line.number}"


def _encoded(record: Record) -> bytes:
    try:
        return schema.encode_record(record)
    except INVALID as error:
        msg = (
            f"the record of policy {record.policy!r} on item {record.item!r} of suite "
            f"{record.suite!r} cannot be stored: {error}; correct the policy, metric or suite "
            f"that gave it"
        )
        raise StoreProblem(msg) from error


def _write_all(file: int, line: bytes) -> None:
    # One write, unless the disk is full: then it is cut short and the next one says why.
    while line:
        line = line[os.write(file, line) :]


def _file_name() -> str:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return f"records-{now}-{os.getpid()}-{secrets.token_hex(2)}.jsonl"


def _nearest_existing(directory: Path) -> Path:
    for path in (directory, *directory.parents):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return path
    return directory


@contextmanager
def _explained(tried: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Only what is written has an option to say where.
        instead = (
            "give another folder" if tried == "read" else "use another one with --kv-store DIR"
        )
        msg = (
            f"cannot {tried} the store {str(path)!r}: {error.strerror or error}; "
            f"correct that, or {instead}"
        )
        raise StoreProblem(msg) from error
