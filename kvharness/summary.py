"""The tables at the end of a run and of `kvharness show`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from tabulate import tabulate

from kvharness.contract import FIXED_ANCHORS, Anchor, retention_from_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kvharness.provenance import Header
    from kvharness.record import Record

#: A suite cannot separate policies when the full cache fails or knows no more than the floor.
_LEAST_FULL = 0.6
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its two-sided 95 % interval (Student's t over items)."""

    mean: float
    half: float
    units: int

    def __str__(self) -> str:
        if self.units < 2:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ±{self.half:.2f}"


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % half-width; the units are items, whose questions are averaged already."""
    units = len(values)
    if units < 2:
        return Interval(mean=fmean(values), half=float("nan"), units=units)
    half = float(stats.sem(values) * stats.t.ppf(0.975, units - 1))
    return Interval(mean=fmean(values), half=half, units=units)


Column = tuple[str, str | None]


def summarize(records: Sequence[Record], headers: Sequence[Header]) -> Iterator[str]:
    """Lines: what was run, a table for each suite, costs, and warnings."""
    yield from _provenance(headers)
    for suite in sorted({record.suite for record in records}):
        chosen = [record for record in records if record.suite == suite]
        yield ""
        yield from _suite_table(suite, chosen)
        yield from _warnings(suite, chosen)
    if records:
        yield ""
        yield from _cost_table(records)


def _provenance(headers: Sequence[Header]) -> Iterator[str]:
    seen = set()
    for header in headers:
        line = _describe(header.settings)
        if line not in seen:
            seen.add(line)
            yield line


def _describe(settings: dict[str, Any]) -> str:
    model, contract = settings.get("model", {}), settings.get("contract", {})
    name, note = model.get("name", "?"), model.get("note")
    weights = f"{name} ({note})" if note else name
    return (
        f"model {weights}, {model.get('dtype')} on {model.get('device')}; "
        f"context {contract.get('context')}, sinks {contract.get('sinks')}, recents "
        f"{contract.get('recents')}, question {contract.get('question')}, evict "
        f"{contract.get('evict')}"
    )


def _by_column(records: Iterable[Record]) -> dict[Column, list[Record]]:
    table: dict[Column, list[Record]] = defaultdict(list)
    for record in records:
        table[record.policy, record.retention].append(record)
    return table


def _retentions(records: Iterable[Record]) -> list[str]:
    texts = {record.retention for record in records if record.retention is not None}
    return sorted(texts, key=retention_from_text)


def _policies(records: Iterable[Record]) -> list[str]:
    """Anchors first, then by name."""
    anchors = [anchor.value for anchor in Anchor]
    names = {record.policy for record in records}
    return sorted(names, key=lambda n: (anchors.index(n) if n in anchors else len(anchors), n))


def _suite_table(suite: str, records: Sequence[Record]) -> Iterator[str]:
    items = len({record.item for record in records})
    name = records[0].score_name
    yield f"{suite}: mean {name} and nll (nats a token) with 95 % intervals over {items} items"
    retentions = _retentions(records)
    for metric in (name, "nll"):
        rows = _rows(records, retentions, lambda r, m=metric: r.metrics[m])  # type: ignore[misc]
        headers = [metric, *(f"keep {text}" for text in retentions or ["all"])]
        yield tabulate(rows, headers=headers, disable_numparse=True)
        yield ""


def _rows(
    records: Sequence[Record], retentions: Sequence[str], number: Callable[[Record], float]
) -> list[list[str]]:
    table = _by_column(records)
    rows = []
    for policy in _policies(records):
        fixed = policy in FIXED_ANCHORS
        columns: list[str | None] = [None] if fixed else list(retentions)
        cells = []
        for column in columns:
            found = table.get((policy, column))
            cells.append(str(interval([number(r) for r in found])) if found else "-")
        # An anchor does not depend on the retention: its one number holds for the whole row.
        rows.append([policy, *(cells * max(1, len(retentions)) if fixed else cells)])
    return rows


def _warnings(suite: str, records: Sequence[Record]) -> Iterator[str]:
    scores = {
        anchor: interval([r.score for r in records if r.policy == anchor])
        for anchor in FIXED_ANCHORS
        if any(r.policy == anchor for r in records)
    }
    full, floor = scores.get(Anchor.FULL), scores.get(Anchor.FLOOR)
    if full is not None and full.mean < _LEAST_FULL:
        yield (
            f"WARNING {suite}: the full cache scores only {full}: the model cannot do this task, "
            f"so eviction has little to destroy"
        )
    if full is not None and floor is not None and full.mean - full.half <= floor.mean + floor.half:
        yield (
            f"WARNING {suite}: no headroom: full {full} and floor {floor} meet, so this suite "
            f"is uninformative here"
        )


def _cost_table(records: Sequence[Record]) -> Iterator[str]:
    yield "realised retention, kept MiB, and milliseconds to score and select (median of items)"
    retentions = _retentions(records)
    table = _by_column(records)
    rows = []
    for policy in _policies(records):
        columns = [None] if policy in FIXED_ANCHORS else retentions
        cells = [_cost(table.get((policy, column), [])) for column in columns]
        rows.append([policy, *(cells * max(1, len(retentions)) if len(columns) == 1 else cells)])
    headers = ["policy", *(f"keep {text}" for text in retentions or ["all"])]
    yield tabulate(rows, headers=headers, disable_numparse=True)
    prefill = np.median([record.seconds.prefill for record in records])
    decode = np.median([record.seconds.decode for record in records])
    yield (
        f"prefill {prefill:.2f} s an item, shared by its cells; decoding {decode:.3f} s a cell, "
        f"batched: compare times with nox -s perf, not here"
    )


def _cost(records: Sequence[Record]) -> str:
    if not records:
        return "-"
    realised = fmean(record.realised_retention for record in records)
    size = fmean(record.cache_bytes for record in records) / _MIB
    select = float(np.median([record.seconds.select for record in records])) * 1e3
    return f"{realised:.4f} {size:.2f}M {select:.0f}ms"
