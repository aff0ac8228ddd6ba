"""Time and memory of each policy."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from kvharness.contract import FIXED_ANCHORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kvharness.records.record import Record
    from kvharness.report.survey import Survey

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A policy at a retention, over all items.

    Attributes:
        select: seconds to score and select, median.
        kept: MiB of keys and values, mean.
        realised: kept entries divided by all, mean.
        items: how many records these are of.
    """

    select: float
    kept: float
    realised: float
    items: int

    @classmethod
    def of(cls, records: Sequence[Record]) -> Cost:
        return cls(
            select=median(record.seconds.select for record in records),
            kept=fmean(record.cache_bytes for record in records) / _MIB,
            realised=fmean(record.realised_retention for record in records),
            items=len(records),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """All of them, by policy and retention; `full` and `floor` have one at every retention.

    Attributes:
        prefill: median seconds an item; all cells of an item share it.
        decode: median seconds a cell; it is a batch's, divided.
        slowest: largest median time to select, for bars.
    """

    by_column: Mapping[tuple[str, str], Cost]
    prefill: float
    decode: float
    slowest: float


def costs(survey: Survey) -> Costs:
    """Zero where there are no records."""
    found = {
        (policy, retention): Cost.of(records)
        for policy in survey.policies
        for retention in survey.retentions or ("",)
        if (records := survey.records(policy, retention))
    }
    prefill = defaultdict(list)
    for record in survey.all_records():
        prefill[record.suite, record.seed, record.item].append(record.seconds.prefill)
    shared = [median(seconds) for seconds in prefill.values()]
    decode = [record.seconds.decode for record in survey.all_records()]
    return Costs(
        by_column=found,
        prefill=median(shared) if shared else 0.0,
        decode=median(decode) if decode else 0.0,
        slowest=max(
            (cost.select for (policy, _), cost in found.items() if policy not in FIXED_ANCHORS),
            default=0.0,
        ),
    )
