"""The tables at the end of a run and of `kvharness show`."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import tabulate

from kvharness.cell import anchors_first
from kvharness.claims.evidence import oracle_label
from kvharness.contract import FIXED_ANCHORS, Anchor, retention_from_text
from kvharness.items.suites import is_solvable
from kvharness.settings.table import contract_settings
from kvharness.statistics.mean import PlusMinus, plus_minus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kvharness.records.header import Header
    from kvharness.records.record import Record


#: A suite cannot separate policies when the full cache fails or knows no more than the floor.
_LEAST_FULL = 0.6
_MIB = 2**20


def over_items(records: Iterable[Record], metric: str) -> PlusMinus:
    """An item that several seeds drew counts once, with its mean: seeds are not samples."""
    by_item: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if (number := record.metrics.get(metric)) is not None:
            by_item[record.item_digest].append(number)
    return plus_minus([fmean(values) for values in by_item.values()])


def summarize(records: Sequence[Record], headers: Sequence[Header]) -> Iterator[str]:
    """Lines: what was run, a table for each suite, costs, and warnings."""
    yield from _provenance(headers)
    label = partial(oracle_label, oracles=frozenset[str]().union(*(h.oracles for h in headers)))
    for suite in sorted({record.suite for record in records}):
        chosen = [record for record in records if record.suite == suite]
        yield ""
        yield from _suite_tables(suite, chosen, label)
        yield from _warnings(suite, chosen)
    if records:
        yield ""
        yield from _costs(records, label)


def _provenance(headers: Sequence[Header]) -> Iterator[str]:
    seen = set()
    for header in headers:
        line = _describe(header.settings)
        if line not in seen:
            seen.add(line)
            yield line


def _describe(settings: dict[str, Any]) -> str:
    model = settings["model"]
    contract = (each.phrase(each.stored(settings)) for each in contract_settings().values())
    weights = f"{model['name']} ({model['note']})" if model.get("note") else model["name"]
    return f"model {weights}, {model.get('dtype')} on {model.get('device')}; {', '.join(contract)}"


def _table(
    title: str,
    records: Sequence[Record],
    show: Callable[[Sequence[Record]], str],
    label: Callable[[str], str],
) -> str:
    """A row for each policy, a column for each retention, and what ``show`` makes of a cell."""
    cells: dict[tuple[str, str | None], list[Record]] = defaultdict(list)
    for record in records:
        cells[record.policy, record.retention].append(record)
    retentions = sorted({text for _, text in cells if text is not None}, key=retention_from_text)
    columns = retentions or ["all"]
    rows = []
    for policy in sorted({policy for policy, _ in cells}, key=anchors_first):
        # full and floor do not depend on the retention: their one cell holds for the whole row.
        keys = [(policy, None if policy in FIXED_ANCHORS else text) for text in columns]
        rows.append([label(policy), *(show(cells[key]) if key in cells else "-" for key in keys)])
    headers = [title, *(f"keep {text}" for text in columns)]
    table: str = tabulate(rows, headers=headers, disable_numparse=True)
    return table


def _suite_tables(
    suite: str, records: Sequence[Record], label: Callable[[str], str]
) -> Iterator[str]:
    items = len({record.item_digest for record in records})
    score = records[0].score_name
    yield f"{suite}: mean {score} and nll (nats a token) with 95 % intervals over {items} items"
    for metric in (score, "nll"):
        yield _table(metric, records, partial(_mean, metric), label)
        yield ""


def _mean(metric: str, records: Iterable[Record]) -> str:
    return str(over_items(records, metric))


def _warnings(suite: str, records: Sequence[Record]) -> Iterator[str]:
    anchors = {
        anchor: over_items(found, found[0].score_name)
        for anchor in FIXED_ANCHORS
        if (found := [record for record in records if record.policy == anchor])
    }
    full, floor = anchors.get(Anchor.FULL), anchors.get(Anchor.FLOOR)
    if full is not None and full.mean < _LEAST_FULL and is_solvable(suite):
        yield (
            f"WARNING {suite}: the full cache scores only {full}: the model cannot do this task, "
            f"so eviction has little to destroy"
        )
    if full is not None and floor is not None and full.mean - full.half <= floor.mean + floor.half:
        yield (
            f"WARNING {suite}: no headroom: full {full} and floor {floor} meet, so this suite "
            f"is uninformative here"
        )


def _costs(records: Sequence[Record], label: Callable[[str], str]) -> Iterator[str]:
    yield "realised retention, kept MiB, and milliseconds to score and select (median of items)"
    yield _table("policy", records, _cost, label)
    prefill = np.median([record.seconds.prefill for record in records])
    decode = np.median([record.seconds.decode for record in records])
    yield (
        f"prefill {prefill:.2f} s an item, shared by its cells; decoding {decode:.3f} s a cell, "
        f"batched: compare times with nox -s perf, not here"
    )


def _cost(records: Sequence[Record]) -> str:
    realised = fmean(record.realised_retention for record in records)
    size = fmean(record.cache_bytes for record in records) / _MIB
    select = float(np.median([record.seconds.select for record in records])) * 1e3
    return f"{realised:.4f} {size:.2f}M {select:.0f}ms"
