from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kvharness.claims.claim import Column
from kvharness.claims.compare import (
    changed_policies,
    changed_settings,
    changed_verdicts,
    changes,
)
from kvharness.claims.judge import judge
from kvharness.records.masks import write_mask
from kvharness.statistics.region import Verdict
from tests.claims.conftest import CONTRACT, Made, claim, pair, spread

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.claims.compare import Change

BASE = spread(mean=3.0, seed=1)


def run(nll: Any = BASE, policy: str = "snapkv") -> Made:
    return Made().run(policy, "0.25", nll=nll)


def one(first: Made, second: Made, metric: str = "nll", **given: Any) -> Change:
    (found,) = changes(first.evidence(), second.evidence(), metric, **given)
    return found


def test_the_same_records_have_not_changed() -> None:
    found = one(run(), run())
    assert (found.suite, found.column) == ("qa", Column("snapkv", "0.25"))
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (0.0, 0.0)
    assert (found.records, found.masks, found.shared) == (60, 0, None)
    assert (found.only_first, found.only_second) == (0, 0)
    assert not found.differs


@pytest.mark.parametrize(("metric", "sign"), [("nll", -1), ("exact", 1)])
def test_a_difference_is_positive_where_the_second_is_better(metric: str, sign: int) -> None:
    change = spread(mean=0.5, sd=0.1)
    first, second = Made(), Made()
    first.run("snapkv", "0.25", metrics={metric: BASE})
    second.run("snapkv", "0.25", metrics={metric: BASE + sign * change})
    found = one(first, second, metric)
    assert found.interval is not None
    assert found.interval.mean == pytest.approx(0.5)
    assert found.interval.low == pytest.approx(0.5 - 1.671 * 0.1 / 60**0.5, abs=1e-4)
    assert found.moved
    assert found.differs


def test_what_may_be_chance_among_many_cells_is_not_sure() -> None:
    first, second = Made(), Made()
    for number in range(10):
        retention = f"0.{number + 10}"
        first.run("snapkv", retention, nll=BASE)
        # Alone each of them is beyond chance: t = 2.32 and p = 0.024.
        shift = spread(mean=0.3, sd=1.0, seed=number) if number < 9 else spread(mean=0.6, sd=1.0)
        second.run("snapkv", retention, nll=BASE + shift)
    found = changes(first.evidence(), second.evidence(), "nll")
    assert [each.moved for each in found] == [False] * 9 + [True]
    assert all(each.interval is not None and each.interval.high < 0 for each in found)
    # What only one store has is not compared, and costs nothing.
    alone = [*first.records, *Made().run("h2o", "0.5").records]
    first.records = alone
    assert sum(each.moved for each in changes(first.evidence(), second.evidence(), "nll")) == 1


def test_other_masks_are_a_change_whatever_the_metric() -> None:
    second = run()
    second.records[3] = replace(second.records[3], mask_digest=("other",))
    found = one(run(), second)
    assert (found.masks, found.moved, found.differs) == (1, False, True)


def test_kept_masks_tell_how_many_entries_are_shared(tmp_path: Path) -> None:
    mask = np.zeros((1, 1, 100), dtype=bool)
    mask[..., :10] = True
    folders = tmp_path / "a", tmp_path / "b"
    second = run()
    for number, shared in ((0, 9), (1, 4), (2, 7)):
        write_mask(folders[1], f"new{number}", np.roll(mask, 10 - shared))
        second.records[number] = replace(second.records[number], mask_digest=(f"new{number}",))
    assert one(run(), second, folders=folders).shared is None, "the first store kept none"
    write_mask(folders[0], "mask", mask)
    found = one(run(), second, folders=folders)
    assert (found.masks, found.shared) == (3, 0.4)


def test_items_are_paired_by_content_and_seed() -> None:
    first, second = run(), run()
    second.records = list(reversed(second.records[5:]))
    first.records = first.records[:-2]
    found = one(first, second)
    assert (found.records, found.only_first, found.only_second) == (53, 5, 2)
    assert found.interval is not None
    assert found.interval.high == 0.0


def test_without_a_shared_item_there_is_nothing_to_compare() -> None:
    found = changes(run().evidence(), run(policy="h2o").evidence(), "nll")
    assert [str(each.column) for each in found] == ["h2o-r0.25", "snapkv-r0.25"]
    assert [(each.interval, each.differs) for each in found] == [(None, False)] * 2
    assert [(each.only_first, each.only_second) for each in found] == [(0, 60), (60, 0)]
    assert one(run(), run(), "f1").interval is None, "not measured"


def test_few_items_are_never_sure() -> None:
    first = Made(seeds=1, items=19).run("snapkv", "0.25", nll=0)
    second = Made(seeds=1, items=19).run("snapkv", "0.25", nll=spread(mean=9.0, units=19))
    assert not one(first, second).moved


def test_settings_that_are_not_shared() -> None:
    first = Made(engine="a", torch="1").header
    other = {**CONTRACT, "context": 64}
    second = Made(engine="b", torch="1", contract=other, items=3).header
    assert changed_settings(first, first) == {}
    assert changed_settings(first, second) == {
        "engine": ("a", "b"),
        "contract context": ("1024", "64"),
        "items": ("12", "3"),
    }
    data = Made(engine="a", torch="1", data={"qa": "f.jsonl"}).header
    assert changed_settings(first, data) == {"data qa": ("-", "f.jsonl")}


def test_policies_whose_code_changed() -> None:
    first, second = run(), run()
    first.settings["policies"] = {"snapkv": {"source": "a"}, "h2o": {"source": "x"}}
    second.settings["policies"] = {"snapkv": {"source": "b"}, "tova": {"source": "y"}}
    assert changed_policies(first.evidence(), second.evidence()) == ["snapkv"]
    assert changed_policies(first.evidence(), first.evidence()) == []


def test_verdicts_that_differ() -> None:
    claims = [claim(), claim(id="same", policy="random", baseline="snapkv", metric="bytes")]
    before = judge(claims, pair(spread(mean=9.0)).evidence())
    after = judge(claims, pair(spread(mean=-9.0)).evidence())
    assert changed_verdicts(before, after) == {"mine": (Verdict.SUPPORTED, Verdict.REFUTED)}
    assert changed_verdicts(before, before) == {}
