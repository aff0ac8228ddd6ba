"""`kvharness report`: a page to look at, and figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kvharness.cli.reading import add_files, add_store, judged, read_evidence, show

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    add_store(parser)
    add_files(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page (default: report.html)",
    )
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="also write the figures, as PNG and PDF"
    )


def run(given: argparse.Namespace) -> int:
    """Write the page; exit status 0."""
    from kvharness.report.write import write_report  # noqa: PLC0415 - matplotlib

    evidence, headers = read_evidence(given.store, evict=given.evict)
    judgements = judged(evidence, given.file)
    write_report(evidence, judgements, headers, given.output, given.figures)
    show([f"{given.output}: {given.output.stat().st_size / 2**20:.1f} MiB"])
    return 0
