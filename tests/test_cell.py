from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.cell import Cell, Group, anchors_first, cells_of
from kvharness.contract import Contract, Protection

RETENTIONS = st.fractions(min_value=Fraction(1, 1000), max_value=1)
CONTRACT = Contract(context=400, protection=Protection(sinks=4, recents=16))


def cell(policy: str = "snapkv", retention: str | None = "0.25", seed: int = 1) -> Cell:
    fraction = None if retention is None else Fraction(retention)
    return Cell(suite="needle", policy=policy, retention=fraction, seed=seed)


@pytest.mark.parametrize(
    ("given_cell", "name"),
    [
        (cell(), "snapkv-r0.25-s1"),
        (cell(retention="1"), "snapkv-r1-s1"),
        (cell(retention="1/3"), "snapkv-r1_3-s1"),
        (cell("ada+snapkv", "0.5", 12), "ada+snapkv-r0.5-s12"),
        (cell("full", None), "full-s1"),
    ],
)
def test_names(given_cell: Cell, name: str) -> None:
    assert given_cell.name == name
    assert given_cell.column == name.rpartition("-s")[0]
    assert str(given_cell.group) == f"needle-s{given_cell.seed}"


@pytest.mark.parametrize(
    ("given_cell", "tokens", "budget"),
    [
        (cell("full", None), 400, 400),
        (cell("floor", None), 400, 20),
        (cell("floor", None), 12, 12),
        (cell(), 400, 100),
        (cell(), 402, 101),
        (cell(retention="1"), 401, 401),
        (cell("oracle", "0.1"), 404, 40),
    ],
)
def test_budgets(given_cell: Cell, tokens: int, budget: int) -> None:
    assert given_cell.budget(tokens, CONTRACT) == budget


def test_the_grid_goes_seed_by_seed_and_fixed_anchors_come_once_in_each() -> None:
    both = [Fraction(1, 4), Fraction(1, 2)]
    chosen = {"full": both, "floor": both, "oracle": both, "tova": both[:1]}
    cells = cells_of("qa", retentions=chosen, seeds=2)
    seed = ["full", "floor", "oracle-r0.25", "oracle-r0.5", "tova-r0.25"]
    assert [each.name for each in cells] == [f"{column}-s{n}" for n in range(2) for column in seed]


def test_anchors_come_first_in_their_own_order() -> None:
    names = ["random", "oracle", "h2o", "floor", "full"]
    assert sorted(names, key=anchors_first) == ["full", "floor", "oracle", "h2o", "random"]


@given(
    st.lists(st.from_regex(r"[a-z][a-z0-9.+-]*", fullmatch=True), unique=True, max_size=4),
    st.lists(RETENTIONS, unique=True, min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_names_are_unique_and_safe(
    policies: list[str], retentions: list[Fraction], seeds: int
) -> None:
    cells = list(cells_of("needle", retentions=dict.fromkeys(policies, retentions), seeds=seeds))
    names = [each.name for each in cells]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._+-]+", name) for name in names)
    assert {each.group for each in cells} <= {Group("needle", seed) for seed in range(seeds)}


@given(RETENTIONS, RETENTIONS, st.integers(1, 5000))
def test_a_larger_retention_never_has_a_smaller_budget(
    one: Fraction, other: Fraction, tokens: int
) -> None:
    low, high = (
        Cell(suite="qa", policy="x", retention=retention, seed=0).budget(tokens, CONTRACT)
        for retention in sorted((one, other))
    )
    assert 0 <= low <= high <= tokens
