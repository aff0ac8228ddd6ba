"""What a worker is doing, on disk, for whoever finds it dead."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class BlackBox:
    """Holds a line while a policy's code runs, since that code may end the process.

    Args:
        path: of the file; None records nothing. A line costs 50 µs.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    @classmethod
    def of(cls, worker: Mapping[str, Any] | None) -> BlackBox:
        """The box of an xdist worker as both its ends know it; without a worker nobody would look.

        It lies outside the store, which only a run with cells has.
        """
        if worker is None:
            return cls()
        name = f"kvharness-{worker['testrunuid']}-{worker['workerid']}"
        return cls(Path(tempfile.gettempdir()) / name)

    @contextmanager
    def during(self, text: str) -> Iterator[None]:
        if self._path is None:
            yield
            return
        # A run does not end because its notes cannot be written.
        with suppress(OSError):
            self._path.write_text(text, encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):
                self._path.unlink()

    def take(self) -> str:
        """The line of a process that died while it held one; empty where there is none."""
        text = ""
        if self._path is not None:
            with suppress(OSError, UnicodeDecodeError):
                text = self._path.read_text(encoding="utf-8")
                self._path.unlink()
        return text
