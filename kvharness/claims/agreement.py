"""Whether a fresh run still does what a recording says: the same entries, the same metrics."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from kvharness.records.masks import read_mask, shared_entries
from kvharness.statistics.mean import plus_minus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from kvharness.claims.claim import Column
    from kvharness.claims.evidence import Evidence
    from kvharness.records.header import Header
    from kvharness.records.record import Record

#: Near-ties flip between processors and library versions; more than that is another policy.
#: Measured on the default bench's needles at 0.25: SnapKV and the oracle in bfloat16 share 0.985 at
#: least between a Xeon with AMX and an EPYC; SnapKV with kernel 5 or 9 for 7 shares 0.84 to 0.89.
LEAST_SHARED = 0.97
_LEAST_ITEMS = 2
_METRICS = ("exact", "slot_accuracy", "nll")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One cell on one item, as it was recorded and as it was run again."""

    suite: str
    column: Column
    recorded: Record
    fresh: Record

    @property
    def same_mask(self) -> bool:
        return self.recorded.mask_digest == self.fresh.mask_digest


def pairs(recorded: Evidence, fresh: Evidence) -> list[Pair]:
    """What both have, by content of the item."""
    found = []
    for (suite, column), again in sorted(fresh.records.items(), key=str):
        before = {
            (record.item_digest, record.seed): record
            for record in recorded.records.get((suite, column), ())
        }
        found += [
            Pair(suite=suite, column=column, recorded=old, fresh=record)
            for record in again
            if (old := before.get((record.item_digest, record.seed))) is not None
        ]
    return found


def incomplete(
    name: str, evidence: Evidence, places: Iterable[tuple[str, Column]]
) -> Iterator[str]:
    """Where a store lacks items that its own runs were to have, a line for each of ``places``."""
    for suite, column in places:
        whole, planned = evidence.cells(suite, column) or (0, 0)
        if whole < planned:
            yield f"{name}: {suite} {column}: {planned - whole} of {planned} seeds are incomplete"


def same_ground(recorded: Sequence[Header], fresh: Sequence[Header]) -> bool:
    """Whether processor, dtype, device and libraries are equal, so that masks must be too."""
    grounds = {_ground(header) for header in (*recorded, *fresh)}
    return len(grounds) == 1


def _ground(header: Header) -> tuple[str, ...]:
    model = header.settings["model"]
    machine = header.machine.get("processor")
    libraries = (header.versions.get(name) for name in ("torch", "transformers"))
    named = (model.get(name) for name in ("digest", "dtype", "device", "kernel", "threads"))
    return tuple(map(str, (machine, *libraries, *named)))


def problems(found: Sequence[Pair], *, exact: bool, folders: tuple[Path, Path]) -> Iterator[str]:
    """What does not agree, a line each.

    Args:
        found: of `pairs`.
        exact: masks have to be equal, since nothing that may flip near-ties has changed.
        folders: of both stores; their kept masks tell how many entries are shared.
    """
    for pair in found:
        if pair.same_mask:
            continue
        shared = _shared(pair, folders)
        if exact or shared is None or shared < LEAST_SHARED:
            share = "masks not stored" if shared is None else f"{shared:.2%} of them shared"
            yield f"{pair.suite} {pair.column} {pair.recorded.item}: other entries kept; {share}"
    for suite, column in dict.fromkeys((pair.suite, pair.column) for pair in found):
        mine = [pair for pair in found if (pair.suite, pair.column) == (suite, column)]
        yield from _metrics(f"{suite} {column}", mine)


def _shared(pair: Pair, folders: tuple[Path, Path]) -> float | None:
    shares = []
    for old, new in zip(pair.recorded.mask_digest, pair.fresh.mask_digest, strict=False):
        masks = read_mask(folders[0], old), read_mask(folders[1], new)
        if masks[0] is None or masks[1] is None:
            return None
        shares.append(shared_entries(masks[0], masks[1]))
    return min(shares, default=None)


def _metrics(name: str, found: Sequence[Pair]) -> Iterator[str]:
    for metric in _METRICS:
        known = (pair for pair in found if metric in pair.recorded.metrics)
        both = [pair for pair in known if metric in pair.fresh.metrics]
        # One item has no interval: its keep mask is all there is to compare.
        if len(both) < _LEAST_ITEMS:
            continue
        before = plus_minus([pair.recorded.metrics[metric] for pair in both])
        after = fmean(pair.fresh.metrics[metric] for pair in both)
        if abs(after - before.mean) > max(before.half, 1e-3):
            yield f"{name}: {metric} is {after:.3f}, recorded {before.mean:.3f} ±{before.half:.3f}"
