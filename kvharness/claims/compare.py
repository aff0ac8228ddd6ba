"""Two stores side by side: verdicts, paired differences, and what was kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvharness.claims.claim import Unit
from kvharness.claims.part import ALPHA
from kvharness.inference.estimate import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kvharness.claims.claim import Column
    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement
    from kvharness.inference.estimate import Interval
    from kvharness.inference.region import Verdict
    from kvharness.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One suite and column in both stores.

    Attributes:
        suite, column: what is compared.
        interval: of the mean paired difference, the second store minus the first; two-sided
            90 %. None where they share no item.
        units: items that both answered.
        masks: how many of them were kept differently: there the policy (or what it saw) changed,
            not only the decoding.
        only_first, only_second: items that one store alone has.
    """

    suite: str
    column: Column
    interval: Interval | None
    units: int
    masks: int
    only_first: int
    only_second: int

    @property
    def differs(self) -> bool:
        """Whether the masks changed, or the interval excludes no change."""
        moved = self.interval is not None and not self.interval.low <= 0 <= self.interval.high
        return bool(self.masks) or moved


def changes(first: Evidence, second: Evidence, metric: str) -> Iterator[Change]:
    """Every suite and column that is in either store, in order."""
    keys = set(first.records) | set(second.records)
    for suite, column in sorted(keys, key=lambda key: (key[0], str(key[1]))):
        yield _change(suite, column, first, second, metric=metric)


def _change(
    suite: str, column: Column, first: Evidence, second: Evidence, *, metric: str
) -> Change:
    one, other = (_by_item(each.records.get((suite, column), ())) for each in (first, second))
    shared = sorted(set(one) & set(other))
    differences = _differences(suite, column, (first, second), metric=metric)
    return Change(
        suite=suite,
        column=column,
        interval=Sample.of(differences).interval(ALPHA) if differences.size else None,
        units=len(shared),
        masks=sum(one[item].mask_digest != other[item].mask_digest for item in shared),
        only_first=len(set(one) - set(other)),
        only_second=len(set(other) - set(one)),
    )


def _by_item(records: Sequence[Record]) -> dict[tuple[str, int], Record]:
    return {(record.item_digest, record.seed): record for record in records}


def _differences(
    suite: str, column: Column, stores: tuple[Evidence, Evidence], *, metric: str
) -> np.ndarray:
    values = [store.values(suite, column, metric, Unit.ITEM) for store in stores]
    first, second = (found if isinstance(found, dict) else {} for found in values)
    return np.array([second[item] - first[item] for item in sorted(set(first) & set(second))])


def changed_verdicts(
    first: Sequence[Judgement], second: Sequence[Judgement]
) -> dict[str, tuple[Verdict, Verdict]]:
    """Claims by id whose verdicts differ between two judgings of the same claims."""
    before: Mapping[str, Verdict] = {each.claim.id: each.verdict for each in first}
    return {
        each.claim.id: (before[each.claim.id], each.verdict)
        for each in second
        if before.get(each.claim.id, each.verdict) is not each.verdict
    }
