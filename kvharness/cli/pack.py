"""`kvharness pack`: a store as a recording, small enough for version control."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kvharness.cli.reading import show
from kvharness.errors import StoreProblem
from kvharness.records.masks import FOLDER
from kvharness.records.packing import pack

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("store", type=Path, metavar="STORE", help="folder given to --kv-store")
    parser.add_argument(
        "recording", type=Path, metavar="RECORDING", help="folder to write; it must not exist yet"
    )


def run(given: argparse.Namespace) -> int:
    """Write the recording, with the masks that the store has; exit status 0."""
    if given.recording.exists():
        raise StoreProblem(f"{given.recording} exists; move it away, or name another folder")
    size = pack(given.store, given.recording)
    masks = given.store / FOLDER
    if masks.is_dir():
        shutil.copytree(masks, given.recording / FOLDER)
    show([f"{given.recording}: {size / 2**20:.1f} MiB of records"])
    return 0
