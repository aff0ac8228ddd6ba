"""`kvharness show`: the tables of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.cli.reading import add_store, demanded, show, warn
from kvharness.records.comparable import newest_records

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    add_store(parser)


def run(given: argparse.Namespace) -> int:
    """Print what a run printed at its end; exit status 0."""
    from kvharness.report.terminal import summarize  # noqa: PLC0415 - scipy, and --help needs none

    records, headers, left_out = newest_records(
        given.store, demanded=demanded(given.evict), say=warn
    )
    show(summarize(records, headers))
    if left_out:
        show([f"{left_out} records of other settings are left out"])
    return 0
