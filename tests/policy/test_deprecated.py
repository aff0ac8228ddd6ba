from __future__ import annotations

from typing import Any

import pytest

import kvharness
from kvharness import (
    Boundaries,
    ColumnSums,
    Ends,
    Future,
    HiddenSimilarity,
    HiddenStates,
    Queries,
)

ENDS = Ends(prefix=1, suffix=2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, set()),
        ({"queries": 8}, {Queries(8)}),
        ({"column_sums": True, "future": False}, {ColumnSums()}),
        (
            {"future": True, "hidden_similarity": True, "boundaries": True},
            {Future(), HiddenSimilarity(), Boundaries()},
        ),
        ({"probes": frozenset({ENDS}), "hidden_states": True}, {ENDS, HiddenStates()}),
    ],
)
def test_needs_are_the_observations_that_they_named(
    given: dict[str, Any], expected: set[object]
) -> None:
    with pytest.warns(DeprecationWarning, match=r"kvharness.Needs goes away in 0.2: write needs"):
        assert kvharness.Needs(**given) == expected


def test_the_warning_says_what_to_write_and_where() -> None:
    with pytest.warns(DeprecationWarning, match="goes away") as told:
        kvharness.Needs(queries=8)
    (warning,) = told
    written = str(warning.message).partition("needs = ")[2]
    assert eval(written, vars(kvharness), {"Queries": Queries}) == frozenset({Queries(8)})  # noqa: S307
    assert warning.filename == __file__
