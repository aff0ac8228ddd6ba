"""What the recorded runs of the repository must show whatever was measured."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from kvharness.contract import Anchor
from kvharness.discovery.registry import installed
from kvharness.records.store import Store

RECORDED = Path(__file__).parents[1] / "suites/recorded"
RECORDINGS = sorted(each for each in RECORDED.iterdir() if each.is_dir())


@pytest.mark.parametrize("folder", RECORDINGS, ids=lambda folder: folder.name)
def test_all_policies_keep_equally_many_entries(folder: Path) -> None:
    totals: dict[tuple[str, str | None], dict[int, set[str]]] = defaultdict(dict)
    for stored in Store.read(folder).by_key.values():
        record = stored.record
        if record.policy not in {Anchor.FULL, Anchor.FLOOR}:
            place = totals[record.item, record.retention]
            place.setdefault(sum(record.kept), set()).add(record.policy)
    assert totals
    assert all(len(found) == 1 for found in totals.values())
    assert max(len(names) for found in totals.values() for names in found.values()) > 1


def test_one_of_them_has_every_policy_and_each_wrapper() -> None:
    store = Store.read(RECORDED / "smollm2-135m-every-policy")
    there = {stored.record.policy for stored in store.by_key.values()}
    known = installed()
    assert {name for name, found in known.items() if not found.wraps} <= there
    around = {name.partition("+")[0] for name in there}
    assert {name for name, found in known.items() if found.wraps} <= around
