from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kvharness.records.header import Header
from kvharness.records.record import Seconds
from kvharness.report.terminal import over_items, summarize
from kvharness.statistics.mean import plus_minus
from tests.runs import RECORD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.records.record import Record


FULL = replace(
    RECORD,
    policy="full",
    retention=None,
    realised_retention=1.0,
    kept=(400,),
    cache_bytes=2**20,
    seconds=Seconds(prefill=2.0, select=0.003, decode=0.25),
)
HEADER = Header(
    run="r1",
    created="2025-01-01T00:00:00+00:00",
    versions={},
    machine={},
    git={},
    settings={
        "model": {"name": "tiny", "note": "made up", "dtype": "float32", "device": "cpu"},
        "contract": {
            "context": 400,
            "sinks": 4,
            "recents": 16,
            "question": "unseen",
            "evict": "prefill",
        },
    },
)


def records(
    policy: str, scores: Sequence[float], retention: str | None = None, suite: str = "needle"
) -> list[Record]:
    """A record for each item, with these scores."""
    return [
        replace(
            FULL,
            suite=suite,
            policy=policy,
            retention=retention,
            item_digest=f"d{number}",
            score=score,
            metrics={"exact": score, "nll": 1 - score},
        )
        for number, score in enumerate(scores)
    ]


def lines(*parts: list[Record]) -> list[str]:
    pieces = summarize([record for part in parts for record in part], [HEADER])
    return "\n".join(pieces).splitlines()


def row(shown: list[str], policy: str) -> list[str]:
    """The cells of a policy in the first table."""
    line = next(line for line in shown if line.startswith(f"{policy} "))
    return re.split(r"  +", line.strip())[1:]


def warnings(shown: list[str]) -> list[str]:
    return [line for line in shown if line.startswith("WARNING")]


def test_the_seeds_of_one_item_are_not_samples() -> None:
    once = records("full", [0.2, 0.6, 1.0])
    again = [replace(record, seed=1, item=f"{record.item}-again") for record in once]
    assert over_items([*once, *again], "exact") == over_items(once, "exact")
    other = [replace(record, metrics={"exact": 0.0}) for record in again]
    assert over_items([*once, *other], "exact") == plus_minus([0.1, 0.3, 0.5])


# -- tables ---------------------------------------------------------------------------------------


def test_a_record_without_a_metric_is_left_out_of_it() -> None:
    bare = replace(FULL, key="b", item_digest="d1", metrics={"exact": 0.0})
    assert over_items([FULL, bare], "nll") == plus_minus([0.5])
    assert str(over_items([bare], "nll")) == "-"
    text = "\n".join(summarize([bare], [HEADER]))
    assert re.search(r"^nll +keep all\n-+ +-+\nfull +- *$", text, flags=re.MULTILINE)


def test_anchors_come_first_and_retentions_are_sorted_as_numbers() -> None:
    shown = lines(
        *(records("h2o", [0.5, 0.5], text) for text in ("0.5", "0.25", "1_3", "1", "0.1")),
        *(records("oracle", [1.0, 1.0], text) for text in ("0.1", "0.25", "1_3", "0.5", "1")),
        records("floor", [0.0, 0.0]),
        records("full", [1.0, 1.0]),
    )
    heads = [line for line in shown if " keep " in line]
    assert re.split(r"  +", heads[0]) == [
        "exact",
        "keep 0.1",
        "keep 0.25",
        "keep 1_3",
        "keep 0.5",
        "keep 1",
    ]
    start = shown.index(heads[0]) + 2
    rows = [line.partition(" ")[0] for line in shown[start : start + 4]]
    assert rows == ["full", "floor", "oracle", "h2o"]


def test_whoever_knows_the_answers_is_marked() -> None:
    header = replace(HEADER, settings={**HEADER.settings, "oracles": ["cheat", "oracle"]})
    given = [records(name, [0.5, 0.5], "0.5") for name in ("cheat", "oracle", "h2o")]
    shown = "\n".join(summarize([each for some in given for each in some], [HEADER, header]))
    for table in re.split(r"(?=^\w+ +keep)", shown, flags=re.MULTILINE)[1:]:
        rows = [line.partition("  ")[0] for line in table.splitlines()[2:5]]
        assert sorted(rows) == ["cheat (oracle)", "h2o", "oracle"]


def test_a_fixed_anchor_holds_for_every_column_and_what_is_missing_is_a_dash() -> None:
    shown = lines(
        records("full", [1.0, 1.0]),
        records("tova", [0.5, 0.5], "0.25"),
        records("snapkv", [0.5, 0.7], "0.5"),
    )
    assert row(shown, "full") == ["1.00 ±0.00", "1.00 ±0.00"]
    assert row(shown, "tova") == ["0.50 ±0.00", "-"]
    assert row(shown, "snapkv") == ["-", "0.60 ±1.27"]


def test_only_fixed_anchors_make_one_column() -> None:
    shown = lines(records("full", [1.0]), records("floor", [0.0]))
    assert any(re.fullmatch(r"exact +keep all", line) for line in shown)
    assert row(shown, "full") == ["1.00"]


def test_each_suite_has_its_tables_and_all_share_the_costs() -> None:
    shown = lines(records("full", [1.0, 1.0]), records("full", [1.0, 1.0], suite="qa"))
    heads = [line.partition(":")[0] for line in shown if ": mean exact and nll" in line]
    assert heads == ["needle", "qa"]
    assert sum("realised retention" in line for line in shown) == 1
    assert "full      1.0000 1.00M 3ms" in shown
    assert any(line.startswith("prefill 2.00 s an item") for line in shown)


def test_the_model_and_the_contract_are_told_once() -> None:
    shown = list(summarize(records("full", [1.0]), [HEADER, replace(HEADER, run="r2")]))
    told = [line for line in shown if line.startswith("model ")]
    contract = "context 400, sinks 4, recents 16, question unseen, evict prefill"
    assert told == [f"model tiny (made up), float32 on cpu; {contract}"]


def test_nothing_is_no_error() -> None:
    assert list(summarize([], [])) == []


# -- warnings -------------------------------------------------------------------------------------


def test_a_suite_that_separates_is_not_warned_about() -> None:
    assert not warnings(lines(records("full", [1.0, 0.9, 1.0]), records("floor", [0.0, 0.1, 0.0])))


def test_a_full_cache_that_fails() -> None:
    (warning,) = warnings(lines(records("full", [0.5, 0.5]), records("floor", [0.0, 0.0])))
    assert "needle: the full cache scores only 0.50 ±0.00" in warning


def test_nobody_knows_every_word_that_comes() -> None:
    """Half of the tokens of a running text is much; a suite without a gap is still told."""
    name = "language-modelling"
    full = records("full", [0.5, 0.5], suite=name)
    assert not warnings(lines(full, records("floor", [0.3, 0.3], suite=name)))
    (warning,) = warnings(lines(full, records("floor", [0.5, 0.5], suite=name)))
    assert "no headroom" in warning


@pytest.mark.parametrize("scores", [([1.0, 0.4, 1.0], [0.0, 1.0, 0.0]), ([0.9], [0.9])])
def test_a_floor_that_meets_the_full_cache(scores: tuple[list[float], list[float]]) -> None:
    full, floor = scores
    (warning,) = warnings(lines(records("full", full), records("floor", floor)))
    assert "needle: no headroom: full " in warning


def test_without_anchors_nothing_is_judged() -> None:
    assert not warnings(lines(records("snapkv", [0.0, 0.0], "0.25")))
    assert not warnings(lines(records("full", [0.9, 0.9])))
