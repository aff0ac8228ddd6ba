from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.statistics.multiple import fixed_sequence, holm

LEVELS = st.sampled_from([0.001, 0.05, 0.2])
#: A coarse grid: ties, and values that meet a level exactly.
PS = st.lists(st.integers(0, 200).map(lambda number: number / 1000), max_size=12)


def step_down(p: list[float], alpha: float) -> list[bool]:
    """Holm's textbook procedure: the smallest first, against alpha over what is left."""
    rejected = [False] * len(p)
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[place] * (len(p) - rank) > alpha:
            break
        rejected[place] = True
    return rejected


@given(PS, LEVELS)
def test_holm_rejects_what_the_textbook_loop_rejects(p: list[float], alpha: float) -> None:
    assert [bool(value <= alpha) for value in holm(p)] == step_down(p, alpha)


def test_holm_as_printed_elsewhere() -> None:
    # The same numbers as p.adjust of R prints for them.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(PS, st.randoms(use_true_random=False))
def test_holm_keeps_the_order_of_its_input(p: list[float], random: object) -> None:
    order = list(range(len(p)))
    random.shuffle(order)  # type: ignore[attr-defined] # it is a random.Random
    assert [holm(p)[place] for place in order] == holm([p[place] for place in order]).tolist()


@given(PS)
def test_holm_lies_between_no_correction_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert np.all(adjusted >= p)
    assert np.all(adjusted <= np.minimum(1, len(p) * np.array(p) + 1e-12))


@given(PS, LEVELS)
def test_a_sequence_stops_at_the_first_that_is_not_rejected(p: list[float], alpha: float) -> None:
    count = fixed_sequence(p, alpha)
    assert all(value <= alpha for value in p[:count])
    assert count == len(p) or p[count] > alpha


@pytest.mark.parametrize("p", [[-0.1], [1.1], [0.5, math.nan]])
def test_what_is_no_p_value_is_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(p)
    with pytest.raises(ValueError, match="between 0 and 1"):
        fixed_sequence(p, 0.05)
