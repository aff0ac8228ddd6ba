from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.report.charts.axis import Axis, apart

NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(NUMBERS, max_size=20))
def test_an_axis_holds_its_numbers_and_has_ticks(numbers: list[float]) -> None:
    axis = Axis.around(numbers, start=300, end=10, include=(0.0,))
    hair = 1e-8 * (axis.high - axis.low)
    for number in numbers:
        assert axis.low - hair <= number <= axis.high + hair
        assert 10 <= axis(number) <= 300
    assert 2 <= len(axis.ticks) <= 8
    assert len({label for _, label in axis.ticks}) == len(axis.ticks)
    assert axis.ticks[0][0] == 300
    assert axis.ticks[-1][0] == 10


def test_numbers_without_an_end() -> None:
    axis = Axis.around([float("inf"), 0.2], start=0, end=100, include=(0.0,))
    assert axis.high == pytest.approx(0.2)
    assert axis(float("inf")) == 100
    assert Axis.around([], start=0, end=100).ticks[0] == (0, "0.0")


def test_labels() -> None:
    axis = Axis.around([-0.21, 0.4], start=0, end=100)
    assert [label for _, label in axis.ticks] == [f"−0.{n}" for n in (3, 2, 1)] + [  # noqa: RUF001
        f"0.{n}" for n in range(5)
    ]


@given(st.lists(st.floats(0, 300), max_size=40), st.floats(1, 20))
def test_labels_keep_their_distance_and_order(wanted: list[float], gap: float) -> None:
    placed = apart(wanted, gap=gap, low=0, high=300)
    order = sorted(range(len(wanted)), key=lambda number: (wanted[number], number))
    for first, second in pairwise(order):
        assert placed[second] - placed[first] >= gap - 0.11
    if len(wanted) * gap <= 300:
        assert all(-0.11 <= place <= 300 for place in placed)


def test_labels_with_room_stay_where_they_are() -> None:
    assert apart([100, 20, 60], gap=12, low=0, high=300) == [100, 20, 60]
