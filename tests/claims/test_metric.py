from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.claims.claim import Column
from kvharness.claims.metric import METRICS, Scale, sign, value
from tests.claims.conftest import record

if TYPE_CHECKING:
    from kvharness.records.record import Record

NUMBERS = st.floats(-1e3, 1e3)


def anchor(policy: str, numbers: list[float], **changes: Any) -> list[Record]:
    return [
        record(Column(policy, None), seed=0, item=item, metrics={"nll": number}, **changes)
        for item, number in enumerate(numbers)
    ]


def test_what_a_record_says_of_each_metric() -> None:
    found = record(
        Column("snapkv", "0.1"),
        seed=0,
        item=0,
        score=0.5,
        evidence_kept=0.25,
        cache_bytes=7,
        metrics={"nll": 2.0, "exact": 1.0},
    )
    numbers = {metric: value(found, metric) for metric in METRICS if metric != "recovered"}
    assert numbers == {
        **dict.fromkeys(numbers),
        "score": 0.5,
        "evidence_kept": 0.25,
        "bytes": 7.0,
        "nll": 2.0,
        "exact": 1.0,
    }


def test_less_is_better_in_nll_and_bytes_only() -> None:
    assert {metric for metric in METRICS if sign(metric) < 0} == {"nll", "bytes"}


def test_recovered_is_the_share_of_the_mean_gap() -> None:
    floor, full = [4.0, 6.0, 5.5], [1.0, 1.5, 0.5]
    scale = Scale.of({"floor": anchor("floor", floor), "full": anchor("full", full)})
    assert isinstance(scale, Scale)
    top, ground = sum(full) / 3, sum(floor) / 3
    for nll in (0.0, top, 2.0, ground, 9.0):
        assert scale.recovered(nll) == pytest.approx((ground - nll) / (ground - top))
    assert scale.recovered(top) == pytest.approx(1)
    assert scale.recovered(ground) == pytest.approx(0)


@given(st.lists(st.tuples(NUMBERS, st.floats(0.5, 9)), min_size=3, max_size=9), NUMBERS)
def test_recovered_as_computed_naively(pairs: list[tuple[float, float]], nll: float) -> None:
    full = [low for low, _ in pairs]
    floor = [low + gap for low, gap in pairs]
    scale = Scale.of({"floor": anchor("floor", floor), "full": anchor("full", full)})
    if isinstance(scale, str):
        assert scale.startswith("no headroom")
        return
    expected = (np.mean(floor) - nll) / (np.mean(floor) - np.mean(full))
    assert scale.recovered(nll) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_only_items_that_both_anchors_answered_count() -> None:
    floor, full = anchor("floor", [4.0, 4.5, 100.0]), anchor("full", [1.0, 1.5])
    assert Scale.of({"floor": floor, "full": full}) == Scale(floor=4.25, full=1.25)


def test_a_record_without_nll_is_no_anchor() -> None:
    floor, full = anchor("floor", [4.0, 4.5, 9.0]), anchor("full", [1.0, 1.5, 1.0])
    bare = replace(floor[2], metrics={"exact": 0.0})
    assert Scale.of({"floor": [*floor[:2], bare], "full": full}) == Scale(floor=4.25, full=1.25)


def test_an_item_of_several_seeds_counts_once() -> None:
    same: dict[str, Any] = {"item_digest": "the same"}
    floor = [*anchor("floor", [4.0, 6.0], **same), *anchor("floor", [9.0])]
    full = [*anchor("full", [1.0, 1.0], **same), *anchor("full", [5.0])]
    # The mean of 5 and 9; by record it would be the mean of 4, 6 and 9.
    assert Scale.of({"floor": floor, "full": full}) == Scale(floor=7.0, full=3.0)


def test_items_are_the_same_by_content_not_by_name() -> None:
    floor = anchor("floor", [4.0, 5.0])
    full = [replace(each, item=f"other-{each.item}") for each in anchor("full", [1.0, 1.5])]
    assert Scale.of({"floor": floor, "full": full}) == Scale(floor=4.5, full=1.25)


@pytest.mark.parametrize(
    ("floor", "full", "reason"),
    [
        ([], [1.0], "needs the records of full and floor"),
        ([4.0], [], "needs the records of full and floor"),
        ([4.0, 4.0], [4.0, 4.0], "no headroom"),
        ([1.0, 1.5, 1.2], [4.0, 4.0, 4.0], "no headroom"),
        ([4.0, 1.0, 3.0], [1.0, 4.0, 2.0], "no headroom"),
        ([4.0], [1.0], "no headroom"),
    ],
)
def test_without_headroom_there_is_no_scale(
    floor: list[float], full: list[float], reason: str
) -> None:
    scale = Scale.of({"floor": anchor("floor", floor), "full": anchor("full", full)})
    assert isinstance(scale, str)
    assert reason in scale


def test_equal_gaps_are_sure() -> None:
    scale = Scale.of({"floor": anchor("floor", [3.0, 4.0]), "full": anchor("full", [1.0, 2.0])})
    assert scale == Scale(floor=3.5, full=1.5)
