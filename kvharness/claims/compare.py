"""Two stores side by side: settings, verdicts, paired differences, and what was kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kvharness.claims.claim import Unit
from kvharness.claims.part import ALPHA, paired
from kvharness.records.comparable import GROUND
from kvharness.records.masks import read_mask, shared_entries
from kvharness.statistics.multiple import holm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kvharness.claims.claim import Column
    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement
    from kvharness.records.header import Header
    from kvharness.records.record import Record
    from kvharness.statistics.estimate import Interval, Sample
    from kvharness.statistics.region import Verdict

    Folders = tuple[Path, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One suite and column in both stores.

    Attributes:
        suite, column: what is compared.
        interval: of the mean paired difference, the second store minus the first; two-sided
            90 %. None where no unit is shared or the metric was not measured.
        p: two-sided, of no difference.
        moved: whether there is one, after Holm over all columns that share records.
        records: how many both have.
        masks: how many of them were kept differently: there the policy (or what it saw) changed,
            not only the decoding.
        shared: the smallest share of entries that both kept, where masks changed and both stores
            have them.
        only_first, only_second: records that one store alone has.
    """

    suite: str
    column: Column
    interval: Interval | None
    p: float
    moved: bool = False
    records: int
    masks: int
    shared: float | None
    only_first: int
    only_second: int

    @property
    def differs(self) -> bool:
        return bool(self.masks) or self.moved


def changes(
    first: Evidence, second: Evidence, metric: str, folders: Folders | None = None
) -> list[Change]:
    """Every suite and column that is in either store, in order.

    ``folders`` are those of the stores, where kept masks lie.
    """
    keys = sorted(set(first.records) | set(second.records), key=lambda key: (key[0], str(key[1])))
    found = [
        _change(suite, column, (first, second), metric=metric, folders=folders)
        for suite, column in keys
    ]
    both = [each for each in found if each.records]
    adjusted = dict(zip(map(id, both), holm([each.p for each in both]), strict=True))
    return [replace(each, moved=bool(adjusted.get(id(each), 1.0) <= ALPHA)) for each in found]


def _change(
    suite: str,
    column: Column,
    stores: tuple[Evidence, Evidence],
    *,
    metric: str,
    folders: Folders | None,
) -> Change:
    one, other = (_by_item(each.records.get((suite, column), ())) for each in stores)
    both = [(one[item], other[item]) for item in sorted(one.keys() & other.keys())]
    changed = [pair for pair in both if pair[0].mask_digest != pair[1].mask_digest]
    sample = _sample(suite, column, stores, metric)
    return Change(
        suite=suite,
        column=column,
        interval=None if sample is None else sample.interval(ALPHA),
        p=_p(sample),
        records=len(both),
        masks=len(changed),
        shared=None if folders is None else _least_shared(changed, folders),
        only_first=len(one.keys() - other.keys()),
        only_second=len(other.keys() - one.keys()),
    )


def _by_item(records: Sequence[Record]) -> dict[tuple[str, int], Record]:
    return {(record.item_digest, record.seed): record for record in records}


def _sample(
    suite: str, column: Column, stores: tuple[Evidence, Evidence], metric: str
) -> Sample | None:
    before, after = (store.values(suite, column, metric, Unit.ITEM) for store in stores)
    if isinstance(before, str) or isinstance(after, str) or not before.keys() & after.keys():
        return None
    return paired(after, before)


def _p(sample: Sample | None) -> float:
    if sample is None or not sample.enough:
        return 1.0
    return min(1.0, 2 * min(sample.p_above(0), sample.p_below(0)))


def _least_shared(changed: Sequence[tuple[Record, Record]], folders: Folders) -> float | None:
    shares = [
        _shared(old, new, folders)
        for pair in changed
        for old, new in zip(*(record.mask_digest for record in pair), strict=False)
    ]
    return min((share for share in shares if share is not None), default=None)


def _shared(old: str, new: str, folders: Folders) -> float | None:
    first, second = read_mask(folders[0], old), read_mask(folders[1], new)
    return None if first is None or second is None else shared_entries(first, second)


def changed_settings(first: Header, second: Header) -> dict[str, tuple[str, str]]:
    """What two runs did not share, of all that changes an answer."""
    found = {}
    for name in (*GROUND, "options"):
        one, other = (_flat(name, each.settings.get(name)) for each in (first, second))
        for key in dict.fromkeys([*one, *other]):
            if one.get(key) != other.get(key):
                found[key] = (one.get(key, "-"), other.get(key, "-"))
    return found


def changed_policies(first: Evidence, second: Evidence) -> list[str]:
    """Policies of both stores whose code, version or parameters differ."""
    both = first.identities.keys() & second.identities.keys()
    return sorted(name for name in both if first.identities[name] != second.identities[name])


def _flat(name: str, value: Any) -> dict[str, str]:
    """``model name``, ``model dtype`` and so on, each as text."""
    if isinstance(value, dict):
        return {f"{name} {key}": _text(inner) for key, inner in value.items()}
    return {name: _text(value)}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


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
