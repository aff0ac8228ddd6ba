from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvharness.claims.agreement import incomplete, pairs, problems, same_ground
from kvharness.claims.claim import Column
from kvharness.claims.evidence import Evidence
from kvharness.records.header import Header
from kvharness.records.masks import write_mask
from kvharness.records.record import QuestionRecord, Record, Seconds
from kvharness.records.store import Stored

if TYPE_CHECKING:
    from pathlib import Path

HEADER = Header(
    run="a",
    created="2026-01-01T00:00:00+00:00",
    versions={"torch": "2.13.0", "transformers": "5.17.0"},
    machine={"processor": "one"},
    git={},
    settings={
        "model": {"name": "tiny", "dtype": "float32"},
        "contract": {},
        "data": {},
        "seeds": 1,
        "items": 2,
        "policies": {"snapkv": {}},
    },
)


def record(number: int, *, nll: float = 1.0, mask: str = "same") -> Record:
    return Record(
        key=f"{number}",
        suite="needle",
        policy="snapkv",
        retention="0.25",
        seed=0,
        item=f"item-{number}",
        item_digest=f"digest-{number}",
        variant="",
        score=1.0,
        score_name="exact",
        metrics={"exact": 1.0, "slot_accuracy": 1.0, "nll": nll + number / 10},
        questions=(QuestionRecord(exact=1.0, slot_accuracy=1.0, nll=nll, agreement=1.0),),
        evidence_kept=None,
        realised_retention=0.25,
        kept=(4,),
        tokens=16,
        cache_bytes=64,
        mask_digest=(mask,),
        seconds=Seconds(prefill=1.0, select=0.0, decode=0.0),
    )


def evidence(records: list[Record]) -> Evidence:
    return Evidence.of([Stored(each, HEADER) for each in records])


def found(first: list[Record], second: list[Record], folder: Path, *, exact: bool) -> list[str]:
    both = pairs(evidence(first), evidence(second))
    return list(problems(both, exact=exact, folders=(folder, folder)))


def test_what_was_run_twice_is_compared_by_content() -> None:
    old, new = [record(0), record(1)], [record(1), record(2)]
    (pair,) = pairs(evidence(old), evidence(new))
    assert pair.recorded is old[1]
    assert pair.fresh is new[0]


def test_equal_runs_agree(tmp_path: Path) -> None:
    records = [record(0), record(1)]
    assert found(records, records, tmp_path, exact=True) == []


def test_other_entries_disagree_unless_nearly_all_are_shared(tmp_path: Path) -> None:
    mask = np.zeros((10, 2, 16), dtype=bool)
    mask[..., :10] = True
    flipped, other = mask.copy(), mask.copy()
    flipped[0, 0, :2] = [False, True]
    flipped[0, 0, 12] = True
    other[:, 0] = ~other[:, 0]
    for name, kept in (("old", mask), ("flipped", flipped), ("other", other)):
        write_mask(tmp_path, name, kept)
    old = [record(0, mask="old")]
    near = [record(0, mask="flipped")]
    assert found(old, near, tmp_path, exact=False) == []
    (line,) = found(old, near, tmp_path, exact=True)
    assert "needle snapkv-r0.25 item-0: other entries kept; 99.50% of them shared" in line
    (line,) = found(old, [record(0, mask="other")], tmp_path, exact=False)
    assert "50.00% of them shared" in line
    (line,) = found(old, [record(0, mask="never stored")], tmp_path, exact=False)
    assert "masks not stored" in line


@pytest.mark.parametrize(("moved", "agrees"), [(0, True), (3, True), (4, False), (20, False)])
def test_between_machines_one_entry_in_33_may_differ(
    tmp_path: Path, moved: int, *, agrees: bool
) -> None:
    mask = np.zeros((1, 1, 200), dtype=bool)
    mask[..., :100] = True
    other = np.roll(mask, moved, axis=-1)
    write_mask(tmp_path, "old", mask)
    write_mask(tmp_path, "other", other)
    lines = found([record(0, mask="old")], [record(0, mask="other")], tmp_path, exact=False)
    assert bool(lines) is not agrees


def test_metrics_must_lie_in_the_recorded_interval(tmp_path: Path) -> None:
    old = [record(number) for number in range(5)]
    assert found(old, [record(n, nll=1.1) for n in range(5)], tmp_path, exact=True) == []
    (line,) = found(old, [record(n, nll=1.5) for n in range(5)], tmp_path, exact=True)
    assert line.startswith("needle snapkv-r0.25: nll is 1.700, recorded 1.200 ±")


def test_a_single_item_is_compared_by_its_mask(tmp_path: Path) -> None:
    assert found([record(0)], [record(0, nll=9.0)], tmp_path, exact=True) == []


def test_where_a_store_lacks_items_is_told() -> None:
    places = [("needle", Column("snapkv", "0.25"))]
    assert list(incomplete("here", evidence([record(0), record(1)]), places)) == []
    (line,) = incomplete("here", evidence([record(0)]), places)
    assert line == "here: needle snapkv-r0.25: 1 of 1 seeds are incomplete"


def test_the_ground_is_processor_model_and_libraries() -> None:
    assert same_ground([HEADER], [replace(HEADER, run="b", created="later")])
    assert not same_ground([HEADER], [replace(HEADER, machine={"processor": "two"})])
    assert not same_ground([HEADER], [replace(HEADER, versions={"torch": "2.14.0"})])
    bfloat16 = {"model": {"name": "tiny", "dtype": "bfloat16"}}
    assert not same_ground([HEADER], [replace(HEADER, settings=bfloat16)])
