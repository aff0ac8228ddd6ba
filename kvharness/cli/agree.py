"""`kvharness agree`: does a fresh run do what a recording says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kvharness.cli.reading import read_evidence, show
from kvharness.errors import StoreProblem

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("recorded", type=Path, metavar="RECORDING", help="a packed or plain store")
    parser.add_argument("fresh", type=Path, metavar="STORE", help="of a run with --kv-masks")


def run(given: argparse.Namespace) -> int:
    """Exit status 1 where the two do not agree."""
    from kvharness.claims.agreement import (  # noqa: PLC0415 - scipy
        LEAST_SHARED,
        incomplete,
        pairs,
        problems,
        same_ground,
    )

    (recorded, before), (fresh, after) = read_evidence(given.recorded), read_evidence(given.fresh)
    modes = [str(each.contract.get("evict", "")) for each in (recorded, fresh)]
    if modes[0] != modes[1]:
        raise StoreProblem(
            f"{given.recorded} is of --kv-evict={modes[0]} and {given.fresh} of "
            f"--kv-evict={modes[1]}, which say nothing of each other; run with the recording's"
        )
    found = pairs(recorded, fresh)
    if not found:
        raise StoreProblem(
            f"{given.fresh} has no item in common with {given.recorded}; run the same suite, "
            f"--kv-items and --kv-context"
        )
    places = dict.fromkeys((pair.suite, pair.column) for pair in found)
    for place, evidence in ((given.recorded, recorded), (given.fresh, fresh)):
        show(incomplete(str(place), evidence, places))
    alone = sum(map(len, fresh.records.values())) - len(found)
    if alone:
        show([f"{alone} records of {given.fresh} are not in {given.recorded}"])
    exact = same_ground(before, after)
    lines = list(problems(found, exact=exact, folders=(given.recorded, given.fresh)))
    show(lines)
    flipped = sum(not pair.same_mask for pair in found)
    rule = "every entry" if exact else f"{LEAST_SHARED:.0%} of entries"
    same = "the same" if exact else "not the same"
    show([f"{len(found)} records compared, {flipped} kept other entries"])
    show([f"processor, dtype and libraries are {same}, so {rule} must agree"])
    show([f"{len(lines)} disagreements" if lines else "the recording holds"])
    return int(bool(lines))
