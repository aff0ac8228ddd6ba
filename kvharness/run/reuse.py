"""A run's end of the store: what the other processes have stored, and its own file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.records.store import Store, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from kvharness.records.record import Record
    from kvharness.records.store import Header, Stored


class Shelf:
    """Where a run looks for records and puts its own.

    Args:
        directory: of the store.
        fresh: find nothing, so that everything is computed again.
        header: makes the header of the run's file, asked for when the first record comes.
        say: prints a line for the user.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fresh: bool,
        header: Callable[[], Header],
        say: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._fresh = fresh
        self._header = header
        self._say = say
        self._writer: Writer | None = None
        self._found: Mapping[str, Stored] = {}
        self._sizes: dict[str, int] = {}
        self._warned: set[str] = set()

    def find(self) -> Mapping[str, Stored]:
        """Records by key, read again only when another process has written some."""
        if self._fresh:
            return {}
        sizes = {path.name: path.stat().st_size for path in sorted(self._directory.glob("*.jsonl"))}
        if sizes != self._sizes:
            store = Store.read(self._directory)
            self._found, self._sizes = store.by_key, sizes
            for warning in store.warnings:
                if warning not in self._warned:
                    self._warned.add(warning)
                    self._say(f"store: {warning}")
        return self._found

    def put(self, record: Record) -> None:
        if self._writer is None:
            self._writer = Writer(self._directory, self._header())
        self._writer.append(record)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
