from __future__ import annotations

from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.items.filler import essays
from kvharness.items.names import _ENDINGS, _OPENINGS, numbers, places

SEEDS = st.integers(0, 2**32)
MOST = len(_OPENINGS)


@given(SEEDS, st.integers(1, MOST))
def test_no_place_is_part_of_another(seed: int, count: int) -> None:
    names = places(Random(seed), count)
    assert len(names) == count
    assert not any(one in other for one, other in permutations(names, 2))


@given(SEEDS, st.integers(1, len(_ENDINGS)))
def test_no_two_places_end_alike(seed: int, count: int) -> None:
    names = places(Random(seed), count)
    ends = {next(end for end in _ENDINGS if name.endswith(end)) for name in names}
    assert len(ends) == count


def test_there_are_no_more_places_than_openings() -> None:
    with pytest.raises(ValueError, match="larger than population"):
        places(Random(0), MOST + 1)


def test_no_place_is_in_the_essays() -> None:
    text = " ".join(sentence for essay in essays() for sentence in essay).lower()
    assert not [o + e for o in _OPENINGS for e in _ENDINGS if (o + e).lower() in text]


@given(SEEDS, st.integers(1, 30), st.integers(2, 7))
def test_numbers_differ_and_have_so_many_digits(seed: int, count: int, digits: int) -> None:
    drawn = numbers(Random(seed), count, digits=digits)
    assert len(set(drawn)) == count
    assert all(number.isdecimal() and len(number) == digits for number in drawn)
    assert all(number[0] != "0" for number in drawn)


@given(SEEDS)
def test_the_generator_decides(seed: int) -> None:
    assert places(Random(seed), 5) == places(Random(seed), 5)
    assert numbers(Random(seed), 5, digits=6) == numbers(Random(seed), 5, digits=6)
