from __future__ import annotations

from fractions import Fraction

from kvharness.cell import Cell
from kvharness.outcome import GroupOutcome


def a_cell(policy: str) -> Cell:
    return Cell(suite="needle", policy=policy, retention=Fraction(1, 4), seed=0)


def test_what_refuses_a_group_refuses_each_of_its_cells() -> None:
    outcome = GroupOutcome(refused="no data")
    assert [outcome.failure(a_cell(name)) for name in ("a", "b")] == ["no data"] * 2


def test_a_failure_is_of_one_cell() -> None:
    outcome = GroupOutcome(failures={a_cell("a").name: "broken"})
    assert [outcome.failure(a_cell(name)) for name in ("a", "b")] == ["broken", ""]
