"""What the commands share: their store, claims files, and printing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kvharness.claims.evidence import Evidence
from kvharness.claims.find import all_claims
from kvharness.claims.metric import METRICS
from kvharness.claims.toml_table import expected_one
from kvharness.contract import EvictMode
from kvharness.errors import UsageProblem
from kvharness.records.comparable import EVICT, NOTHING, comparable
from kvharness.settings.table import SettingTable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from kvharness.claims.judgement import Judgement
    from kvharness.records.header import Header


def read_evidence(store: Path, *, evict: str | None = None) -> tuple[Evidence, list[Header]]:
    """The newest comparable records of a store, and the headers of the runs they are from.

    ``evict`` is what the user gave as the time of eviction.

    Raises:
        StoreProblem: there are none, or the store cannot be read.
    """
    stored, _, left_out = comparable(store, demanded=demanded(evict), say=warn)
    if left_out:
        show([f"{left_out} records of other settings are left out"])
    headers = {each.header.run: each.header for each in stored}
    return Evidence.of(stored, place=str(store)), list(headers.values())


def demanded(evict: str | None) -> Mapping[str, str]:
    """The settings that records must have where the user gave a time of eviction, or did not."""
    return NOTHING if evict is None else {EVICT: evict}


def judged(evidence: Evidence, files: Sequence[Path]) -> list[Judgement]:
    """All claims there are, judged.

    Raises:
        ClaimProblem: a claims file cannot be read.
    """
    from kvharness.claims.judge import judge  # noqa: PLC0415 - scipy, and --help needs none

    return judge(all_claims(files), evidence)


def check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise UsageProblem(f"--metric {metric!r}: {expected_one(metric, METRICS)}")


def show(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)  # noqa: T201


def warn(text: str) -> None:
    print(f"kvharness: {text}", file=sys.stderr)  # noqa: T201


def add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a claims file beside those of the suites and of installed packages; repeatable",
    )


def add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "store",
        type=Path,
        nargs="?",
        default=Path(SettingTable.store.default),
        metavar="STORE",
        help=f"folder given to --kv-store (default: {SettingTable.store.default})",
    )
    parser.add_argument(
        "--evict",
        choices=[mode.value for mode in EvictMode],
        help="which of a store's records: those of runs that evicted then (default: prefill, "
        "where there are any)",
    )
