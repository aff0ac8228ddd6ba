from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from kvharness.claims.claim import Column, Unit
from kvharness.claims.evidence import Evidence
from kvharness.claims.plan import Plan, ReplayPlan
from kvharness.records.store import Stored
from tests.claims.conftest import CONTRACT, Made, spread

SNAPKV = Column("snapkv", "0.25")


def plan(seeds: int, *, items: int = 12, column: Column = SNAPKV) -> Plan:
    return Plan(items=items, drawn=5, seeds={("qa", column): frozenset(range(seeds))})


def test_the_newest_run_says_what_the_evidence_is_of() -> None:
    old, new = Made(seeds=1), Made(seeds=2, items=3, data={"qa": "mine.jsonl"})
    old.run("snapkv", "0.25")
    new.run("random", "0.25")
    headers = [replace(old.header, run="old"), replace(new.header, run="new")]
    both = [
        *(Stored(each, headers[0]) for each in old.records),
        *(Stored(each, headers[1]) for each in new.records),
    ]
    found = Evidence.of(both, place="here")
    assert found.model == "tiny"
    assert found.contract == CONTRACT
    assert found.data == {"qa": "mine.jsonl"}
    assert found.place == "here"
    assert found.policies == {"snapkv", "random"}
    assert found.identities == {"snapkv": {"policy": "snapkv"}, "random": {"policy": "random"}}
    assert found.drawn("snapkv") == (1, 12)
    assert found.drawn("random") == (2, 3)
    assert found.drawn("h2o") == (0, 0)


@pytest.mark.parametrize("order", [1, -1])
def test_the_largest_run_of_a_policy_says_what_there_should_be(order: int) -> None:
    runs = [Made(seeds=5).run("snapkv", "0.25"), Made(seeds=2).run("snapkv", "0.25")][::order]
    stored = [
        Stored(each, replace(made.header, run=str(number)))
        for number, made in enumerate(runs)
        for each in made.records
    ]
    assert Evidence.of(stored).drawn("snapkv") == (5, 12)


def test_no_records_are_no_evidence() -> None:
    with pytest.raises(ValueError, match="no records"):
        Evidence.of([])


def test_of_two_records_of_a_cell_and_item_the_last_counts() -> None:
    made = Made(seeds=1, items=1).run("snapkv", "0.25", nll=1.0).run("snapkv", "0.25", nll=2.0)
    assert made.evidence().values("qa", SNAPKV, "nll", Unit.ITEM) == {"of qa-s0-00": -2.0}


def test_a_cell_is_whole_when_every_item_is_there() -> None:
    made = Made().run("snapkv", "0.25")
    assert made.evidence().cells("qa", SNAPKV) == (5, 5)
    assert made.drop(policy="snapkv", seed=3).evidence().cells("qa", SNAPKV) == (4, 5)
    assert made.drop(policy="snapkv", seed=1, items=range(12)).evidence().cells("qa", SNAPKV) == (
        3,
        5,
    )


def test_a_store_should_have_every_cell_of_the_policies_that_were_run() -> None:
    evidence = Made().run("snapkv", "0.25").evidence()
    assert evidence.cells("qa", Column("snapkv", "0.5")) == (0, 5), "a lost cell"
    assert evidence.cells("needle", SNAPKV) == (0, 5), "a lost suite"
    assert evidence.cells("qa", Column("h2o", "0.25")) is None, "never run"


@pytest.mark.parametrize("suite", ["language-modelling", "qa-records"])
def test_a_suite_that_is_collected_on_demand_is_lost_only_where_it_was_run(suite: str) -> None:
    made = Made().run("snapkv", "0.25")
    assert made.evidence().cells(suite, SNAPKV) is None
    made.run("random", "0.25", suite=suite)
    assert made.evidence().cells(suite, SNAPKV) == (0, 5)


@pytest.mark.parametrize("replayed", [True, False])
def test_of_a_suite_that_stands_alone_no_other_is_due(replayed: bool) -> None:  # noqa: FBT001
    made = Made().run("snapkv", "0.25", suite="language-modelling")
    plan = ReplayPlan(items=12, suites={"language-modelling"}, drawn={"snapkv": 5})
    evidence = made.evidence(plan=plan) if replayed else made.evidence()
    assert evidence.cells("qa", SNAPKV) is None
    assert evidence.cells("language-modelling", SNAPKV) == (5, 5)
    bench = ReplayPlan(items=12, suites={"needle"}, drawn={"snapkv": 5})
    assert not bench.of("language-modelling", SNAPKV)
    assert bench.of("qa", SNAPKV)


def test_what_was_deselected_is_not_missing() -> None:
    chosen = {("qa", SNAPKV): [3]}
    plan = ReplayPlan(items=12, suites={"needle", "qa"}, drawn={"snapkv": 5}, chosen=chosen)
    evidence = Made().run("snapkv", "0.25").evidence(plan=plan)
    assert evidence.cells("qa", SNAPKV) == (1, 1)
    assert evidence.cells("needle", SNAPKV) == (0, 5)
    assert evidence.cells("qa", Column("h2o", "0.25")) is None


def test_a_header_that_promises_millions_of_seeds_costs_nothing() -> None:
    made = Made().run("snapkv", "0.25")
    made.settings["seeds"] = 10_000_000
    tracemalloc.start()
    assert made.evidence().cells("qa", SNAPKV) == (5, 10_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_plan_says_what_there_should_be() -> None:
    made = Made().run("snapkv", "0.25")
    assert made.evidence(plan=plan(2)).cells("qa", SNAPKV) == (2, 2)
    assert made.evidence(plan=plan(7)).cells("qa", SNAPKV) == (5, 7)
    assert made.evidence(plan=plan(2, items=13)).cells("qa", SNAPKV) == (0, 2)
    assert made.evidence(plan=plan(2)).cells("qa", Column("snapkv", "0.5")) is None
    assert made.evidence(plan=plan(2)).drawn("snapkv") == (5, 12)


@pytest.mark.parametrize(("metric", "sign"), [("nll", -1), ("exact", 1)])
def test_values_are_signed_so_that_more_is_better(metric: str, sign: int) -> None:
    numbers = spread(mean=2.0)
    made = Made().run("snapkv", "0.25", metrics={metric: numbers})
    found = made.evidence().values("qa", SNAPKV, metric, Unit.ITEM)
    assert isinstance(found, dict)
    assert list(found.values()) == pytest.approx(sign * numbers)


def test_bytes_are_negated_too() -> None:
    made = Made(seeds=1, items=1).run("snapkv", "0.25")
    assert made.evidence().values("qa", SNAPKV, "bytes", Unit.ITEM) == {"of qa-s0-00": -64.0}


def test_recovered_is_in_units_of_the_suites_own_gap() -> None:
    shares = spread(mean=0.5, sd=0.2)
    made = Made().anchors().recovers("snapkv", "0.25", shares)
    found = made.evidence().values("qa", SNAPKV, "recovered", Unit.ITEM)
    assert isinstance(found, dict)
    assert list(found.values()) == pytest.approx(shares)
    assert "needs the records of full and floor" in str(
        made.evidence().values("needle", SNAPKV, "recovered", Unit.ITEM)
    )


def test_a_seed_may_be_the_unit() -> None:
    numbers = spread(mean=2.0)
    made = Made().run("snapkv", "0.25", nll=numbers)
    found = made.evidence().values("qa", SNAPKV, "nll", Unit.SEED)
    assert isinstance(found, dict)
    assert sorted(found) == ["0", "1", "2", "3", "4"]
    assert list(found.values()) == pytest.approx(-numbers.reshape(5, 12).mean(axis=1))


def test_an_item_that_every_seed_drew_is_one_unit() -> None:
    made = Made().run("snapkv", "0.25", nll=np.arange(60.0))
    made.records = [replace(each, item_digest=f"item {each.item[-2:]}") for each in made.records]
    found = made.evidence().values("qa", SNAPKV, "nll", Unit.ITEM)
    assert isinstance(found, dict)
    assert len(found) == 12
    assert found["item 03"] == pytest.approx(-np.mean([3, 15, 27, 39, 51]))


def test_what_was_not_measured_is_told() -> None:
    evidence = Made().run("snapkv", "0.25").evidence()
    reason = evidence.values("qa", SNAPKV, "f1", Unit.ITEM)
    assert reason == "f1 was not measured for snapkv-r0.25 on qa"


def test_every_run_says_who_knows_the_answers() -> None:
    runs = [
        Made(oracles=["cheat"]).run("cheat", "0.25"),
        Made(oracles=["spy+window8"]).run("spy+window8", "0.25").run("h2o", "0.25"),
        Made().run("oracle", "0.25"),
    ]
    evidence = Evidence.of(
        Stored(each, replace(made.header, run=str(number)))
        for number, made in enumerate(runs)
        for each in made.records
    )
    assert evidence.oracles == {"oracle", "cheat", "spy+window8"}
    labels = [evidence.label(name) for name in ("cheat", "spy+window8", "oracle", "h2o")]
    assert labels == ["cheat (oracle)", "spy+window8 (oracle)", "oracle", "h2o"]
