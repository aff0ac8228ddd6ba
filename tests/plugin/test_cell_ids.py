from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.cell import Cell, Group
from kvharness.items.suites import SUITES
from kvharness.plugin import cell_ids
from kvharness.plugin.cell_ids import cells_of_ids

CELLS = st.builds(
    Cell,
    suite=st.sampled_from(sorted(SUITES)),
    policy=st.from_regex(r"[a-z0-9][a-z0-9.+-]{0,12}", fullmatch=True).filter(
        lambda name: name not in {"full", "floor"} and "-r" not in name and "-s" not in name
    ),
    retention=st.builds(Fraction, st.integers(1, 9), st.integers(9, 40)),
    seed=st.integers(0, 99),
)


def id_of(cell: Cell) -> str:
    return f"suites/test_any.py::test_{cell.suite.replace('-', '_')}[{cell.name}]"


@given(st.lists(CELLS, unique=True, max_size=8))
def test_ids_give_the_cells_back(cells: list[Cell]) -> None:
    found = cells_of_ids([id_of(cell) for cell in cells], {})
    assert {cell for group in found.values() for cell in group} == set(cells)
    assert all(cell.group == group for group, some in found.items() for cell in some)


def test_fixed_anchors_have_no_retention() -> None:
    found = cells_of_ids(["a.py::test_qa[full-s3]"], {})
    assert found == {Group("qa", 3): [Cell(suite="qa", policy="full", retention=None, seed=3)]}


@pytest.mark.parametrize(
    ("text", "policy", "retention"),
    [
        ("snapkv+window16-r0.25-s0", "snapkv+window16", Fraction(1, 4)),
        ("ada+h2o-r1_3-s0", "ada+h2o", Fraction(1, 3)),
        ("old-r2-r0.5-s0", "old-r2", Fraction(1, 2)),
        ("more-s1-r1-s0", "more-s1", Fraction(1)),
    ],
)
def test_policies_may_have_any_name(text: str, policy: str, retention: Fraction) -> None:
    ((cell,),) = cells_of_ids([f"test_qa[{text}]"], {}).values()
    assert (cell.policy, cell.retention, cell.seed) == (policy, retention, 0)


def test_a_function_of_any_name_is_of_the_suite_that_it_told() -> None:
    ids = ["a.py::test_mine[full-s0]", "a.py::test_qa[full-s0]"]
    assert list(cells_of_ids(ids, {})) == [Group("qa", 0)]
    told = {cell_ids.test_of(ids[0]): "needle", cell_ids.test_of(ids[1]): "summarization"}
    assert list(cells_of_ids(ids, told)) == [Group("needle", 0), Group("summarization", 0)]


@pytest.mark.parametrize(
    "nodeid",
    [
        "a.py::test_qa",
        "a.py::test_qa[3]",
        "a.py::test_other[x-r1_0-s3]",
        "a.py::test_other[full-s0]",
        "[-s1]",
        "",
        "a.py::test_qa[full-s0]::more",
    ],
)
def test_other_tests_are_no_cells(nodeid: str) -> None:
    assert cells_of_ids([nodeid], {}) == {}


@given(st.lists(st.text(alphabet="test_qa[]-rs01_.:x", max_size=30)))
def test_whatever_ids_there_are_they_are_survived(ids: list[str]) -> None:
    cells_of_ids(ids, {})


def test_a_fraction_has_a_denominator() -> None:
    assert all(
        cell.retention is None for cell in cells_of_ids(["test_qa[x-r1_0-s3]"], {})[Group("qa", 3)]
    )


def test_the_function_of_an_id() -> None:
    assert cell_ids.test_of("a.py::test_qa[full-s0]") == "a.py::test_qa"
    assert cell_ids.test_of("a.py::test_qa[3]") == "a.py::test_qa[3]"
