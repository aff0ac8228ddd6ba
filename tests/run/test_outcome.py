from __future__ import annotations

import json
from fractions import Fraction

from kvharness.cell import Cell, Group
from kvharness.items.repetition import Novelty
from kvharness.run.outcome import GroupOutcome, Tallies, Tally
from tests.runs import a_record


def a_cell(policy: str) -> Cell:
    return Cell(suite="needle", policy=policy, retention=Fraction(1, 4), seed=0)


def test_what_refuses_a_group_refuses_each_of_its_cells() -> None:
    outcome = GroupOutcome(refused="no data")
    assert [outcome.failure(a_cell(name)) for name in ("a", "b")] == ["no data"] * 2


def test_a_failure_is_of_one_cell() -> None:
    outcome = GroupOutcome(failures={a_cell("a").name: "broken"})
    assert [outcome.failure(a_cell(name)) for name in ("a", "b")] == ["broken", ""]


def test_records_are_put_in_the_order_of_items() -> None:
    outcome = GroupOutcome()
    for name in ("b", "c", "a"):
        outcome.records["cell"].append(a_record(name, item=name))
    outcome.sort(["c", "a", "b"])
    assert [record.key for record in outcome.records["cell"]] == ["c", "a", "b"]


def a_tally(group: str, computed: int, reused: int = 0, *, distinct: int = 0) -> Tally:
    novelty = Novelty(1000 if distinct else 0, distinct)
    return Tally(group=group, computed=computed, reused=reused, novelty=novelty)


def lines(*tallies: Tally) -> list[str]:
    added = Tallies()
    for tally in tallies:
        added.add(tally)
    return list(added.lines("here"))


def test_a_tally_is_of_an_outcome_and_survives_the_way_from_a_worker() -> None:
    outcome = GroupOutcome(computed=3, reused=1, novelty=Novelty(20, 10))
    tally = Tally.of(Group("qa", 2), outcome)
    assert tally == Tally(group="qa-s2", computed=3, reused=1, novelty=Novelty(20, 10))
    assert Tally.from_dict(json.loads(json.dumps(tally.as_dict()))) == tally


def test_groups_add_up_and_each_counts_once() -> None:
    first, second = a_tally("qa-s0", 3, 1), a_tally("qa-s1", 0, 4)
    expected = ["3 records computed, 5 reused; store: here"]
    assert lines(first, second) == lines(first, second, first, first) == expected


def test_what_was_computed_before_a_crash_counts_as_computed() -> None:
    before, after = a_tally("qa-s0", 4), a_tally("qa-s0", 0, 4)
    assert lines(before, after) == lines(after, before)
    assert lines(after, before) == ["4 records computed, 0 reused; store: here"]


def test_the_group_that_repeats_most_is_named() -> None:
    tallies = [a_tally("qa-s0", 1, distinct=1000), a_tally("qa-s1", 1, distinct=600)]
    assert lines(*tallies, a_tally("real-s0", 1))[0] == (
        "80.0% of the 50-token windows of the generated contexts are distinct within their suite "
        "and seed; fewest in qa-s1, 60.0%"
    )


def test_nothing_was_run() -> None:
    assert lines() == []
