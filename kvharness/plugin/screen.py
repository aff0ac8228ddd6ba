"""What a run prints: lines while it works, a progress bar, and the section at its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pytest

    from kvharness.items.item import Item


class Screen:
    """A process's way to the terminal that its user looks at."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        worker = getattr(config, "workerinput", None)
        self._worker: str | None = worker["workerid"] if worker is not None else None

    def say(self, text: str) -> None:
        if self._worker is not None:
            # A worker has no terminal, but it writes to the same screen as its controller.
            print(f"\nkvharness: {self._worker}: {text}", file=sys.stderr, flush=True)  # noqa: T201
            return
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"kvharness: {text}")

    def progress(self, items: Sequence[Item], label: str) -> Iterable[Item]:
        quiet = self._worker is not None or not sys.stderr.isatty()
        bar: Iterable[Item] = tqdm(items, desc=label, unit="item", leave=False, disable=quiet)
        return bar


def tables(directory: Path, keys: Iterable[str]) -> Iterator[str]:
    """The tables of the records that a run's tests looked at, read from its store."""
    from kvharness.records.store import Store  # noqa: PLC0415
    from kvharness.report.terminal import summarize  # noqa: PLC0415 - scipy

    stored = Store.read(directory).by_key
    found = [stored[key] for key in sorted(keys) if key in stored]
    headers = {each.header.run: each.header for each in found}
    yield from summarize([each.record for each in found], list(headers.values()))
