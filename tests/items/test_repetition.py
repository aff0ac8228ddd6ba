from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvharness.items.repetition import Novelty


def test_the_share_counts_windows() -> None:
    assert Novelty.of([[1, 2, 3, 4]], window=2).share == 1
    assert Novelty.of([[1, 2, 3], [1, 2, 4]], window=2) == Novelty(4, 3)
    assert Novelty.of([[7] * 10], window=1).share == 1 / 10
    assert Novelty.of([range(100)] * 4).share == 1 / 4


def test_contexts_without_a_window_have_nothing_that_repeats() -> None:
    assert Novelty.of([range(49), []]) == Novelty.of([]) == Novelty(0, 0)
    assert Novelty().share == 1


def test_a_sum_looks_at_each_part_on_its_own() -> None:
    once = Novelty.of([range(100)])
    assert (once + once).share == 1
    assert once + Novelty.of([range(60)] * 2) == Novelty(51 + 22, 51 + 11)


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=5), st.integers(1, 5))
def test_the_share_is_that_of_the_windows(contexts: list[list[int]], window: int) -> None:
    windows = [
        tuple(part[start : start + window])
        for part in contexts
        for start in range(max(0, len(part) - window + 1))
    ]
    expected = len(set(windows)) / len(windows) if windows else 1
    assert Novelty.of(contexts, window=window).share == expected
