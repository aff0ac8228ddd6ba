from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvharness.claims.toml_table import Table, expected_one, shown
from kvharness.errors import ClaimProblem
from kvharness.statistics.region import Kind

KEYS = ("id", "kind", "suites", "margin", "expect")


def table(**given: Any) -> Table:
    return Table(Path("a.toml"), 3, given, KEYS)


def test_keys_are_taken_out_as_they_are_read() -> None:
    found = table(id="x", kind="better", suites=["a", "b"], margin=1, expect={"m": "v"})
    assert found.text("id") == "x"
    assert found.choice("kind", Kind) is Kind.BETTER
    assert found.several("suites", "...", str.upper) == ("A", "B")
    assert found.number("margin") == 1.0
    assert found.mapping("expect") == {"m": "v"}
    assert found.left == {}


def test_a_switch_is_true_or_false() -> None:
    assert table(id="a", margin=True).switch("margin") is True
    assert table(id="a").switch("margin") is False
    wrong: list[object] = [1, "yes", []]
    for given in wrong:
        with pytest.raises(ClaimProblem, match=r"margin .*: expected true or false"):
            table(id="a", margin=given).switch("margin")


def test_what_is_left_out_has_a_default() -> None:
    assert table().text("id", "d") == "d"
    assert table().choice("kind", Kind, Kind.BETTER) is Kind.BETTER
    assert table().number("margin") == 0
    assert table().mapping("expect") == {}


def test_an_unknown_key_is_told_before_anything_else() -> None:
    with pytest.raises(
        ClaimProblem, match=r"claim 'x': 'margn' is no key .* mean 'margin'"
    ) as told:
        table(id="x", margn=1)
    assert str(told.value).startswith("a.toml: ")
    assert "expected one of id, kind, suites, margin, expect" in str(told.value)


def test_a_claim_without_an_id_is_named_by_its_number() -> None:
    with pytest.raises(ClaimProblem, match=r"a\.toml: claim 3: kind is missing: expected one of"):
        table().one_of("kind", ["better"])


@pytest.mark.parametrize("value", [True, "1", -1, float("nan"), float("inf"), 1e12, [], None])
def test_numbers_are_finite_and_from_zero(value: object) -> None:
    with pytest.raises(ClaimProblem, match=r"margin .*: expected a number from 0"):
        table(margin=value).number("margin")


@pytest.mark.parametrize("value", ["qa", [], [1], ["a", 1], {"a": 1}, ["a", "a"]])
def test_lists_hold_different_texts(value: object) -> None:
    with pytest.raises(ClaimProblem, match=r"suites .*: expected (a list of texts|each of them)"):
        table(suites=value).several("suites", '["qa"]', str)


def test_what_is_shown_of_a_value_is_short() -> None:
    assert shown("short") == "'short'"
    assert len(shown("x" * 10**6)) <= 60
    assert len(shown([["x" * 1000] * 1000] * 1000)) < 3000
    assert shown(16**5000) == "a number of thousands of digits"


def test_the_nearest_allowed_word_is_offered() -> None:
    assert expected_one("bettr", Kind) == (
        "expected one of better, not_better, not_worse, equivalent; did you mean 'better'?"
    )
    assert expected_one("zzz", ["a", "b"]) == "expected one of a, b"
    assert expected_one(["odd"], ["a"]) == "expected one of a"
