from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.contract import (
    Contract,
    EvictMode,
    Protection,
    QuestionMode,
    budget_of,
    parse_retention,
    retention_from_text,
    retention_text,
)
from kvharness.errors import UsageProblem

RETENTIONS = st.fractions(min_value=0, max_value=1, max_denominator=10**6).filter(bool)
SIZES = st.integers(0, 40)
PROTECTIONS = st.builds(Protection, sinks=SIZES, recents=SIZES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", Fraction(1, 10)),
        (".1", Fraction(1, 10)),
        ("0.10", Fraction(1, 10)),
        ("1/10", Fraction(1, 10)),
        (" 0.1\n", Fraction(1, 10)),
        ("1/3", Fraction(1, 3)),
        ("1", Fraction(1)),
        ("1.0", Fraction(1)),
        ("7/7", Fraction(1)),
        ("0.333333333333333333", Fraction(333333333333333333, 10**18)),
    ],
)
def test_retention_is_read_exactly(text: str, value: Fraction) -> None:
    assert parse_retention(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0.0",
        "0/5",
        "1.1",
        "2",
        "3/2",
        "nan",
        "inf",
        "1e-1",
        "-0.5",
        "+0.5",
        "1/0",
        "0/0",
        "1.",
        "0.5%",
        "0,5",
        "1 /3",
        "1/-3",
        "0_1",
        "0.1 0.2",
        "\u0660.\u0665",  # Arabic-Indic 0.5
        "\uff10.\uff15",  # fullwidth 0.5
        "\u00bd",
        "0." + "1" * 10_000,
        "9" * 10_000,
        "1/" + "9" * 100,
    ],
)
def test_what_is_no_retention_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"expected a fraction in \(0, 1\]") as caught:
        parse_retention(text)
    assert f"--retention {text[:40]!r}" in str(caught.value)
    assert len(str(caught.value)) < 140


@given(retention=RETENTIONS)
def test_retention_text_round_trips(retention: Fraction) -> None:
    text = retention_text(retention)
    assert retention_from_text(text) == retention
    assert parse_retention(text) == retention, "what ids and tables print can be given"
    # Part of test ids and file names.
    assert re.fullmatch(r"[0-9._]+", text)


@given(retention=RETENTIONS)
def test_retention_text_is_a_decimal_wherever_one_ends(retention: Fraction) -> None:
    ends = 10**20 % retention.denominator == 0
    text = retention_text(retention)
    assert ("_" not in text) == ends
    if ends:
        assert text == "1" or not text.endswith(("0", "."))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.1", "0.1"),
        ("1/4", "0.25"),
        (".50", "0.5"),
        ("1.00", "1"),
        ("2/6", "1_3"),
        ("1_3", "1_3"),
        ("2_8", "0.25"),
    ],
)
def test_equal_retentions_share_a_text(text: str, canonical: str) -> None:
    assert retention_text(parse_retention(text)) == canonical


@given(retention=RETENTIONS, tokens=st.integers(0, 10**7))
def test_budget_rounds_half_up_without_floats(retention: Fraction, tokens: int) -> None:
    budget = budget_of(retention, tokens)
    assert budget <= retention * tokens + Fraction(1, 2) < budget + 1
    assert 0 <= budget <= tokens


@pytest.mark.parametrize(
    ("text", "tokens", "budget"),
    [
        ("0.1", 1000, 100),  # int(1000 * (1 - 0.9)) is 99
        ("0.7", 10, 7),
        ("0.29", 100, 29),
        ("1/3", 1000, 333),
        ("1/2", 5, 3),
        ("0.1", 5, 1),
        ("0.1", 4, 0),
        ("1", 1000, 1000),
    ],
)
def test_budgets_that_others_get_wrong(text: str, tokens: int, budget: int) -> None:
    assert budget_of(parse_retention(text), tokens) == budget


@given(protection=PROTECTIONS, budget=st.integers(0, 100))
def test_recents_shrink_before_sinks(protection: Protection, budget: int) -> None:
    if budget < protection.sinks:
        with pytest.raises(UsageProblem):
            protection.fit(budget)
        return
    fitted = protection.fit(budget)
    assert fitted.sinks == protection.sinks
    assert fitted.recents == min(protection.recents, budget - protection.sinks)


def test_a_budget_below_the_sinks_says_what_to_change() -> None:
    message = (
        "a budget of 3 entries a head cannot hold the 4 sinks; "
        "raise --retention or --kv-context, or lower --kv-sinks"
    )
    with pytest.raises(UsageProblem, match=f"^{re.escape(message)}$"):
        Protection().fit(3)


@given(
    contract=PROTECTIONS,
    extra=st.builds(Protection, sinks=st.integers(-5, 200), recents=st.integers(-5, 200)),
    spare=st.integers(0, 50),
)
def test_extending_never_costs_the_contract_nor_exceeds_the_budget(
    contract: Protection, extra: Protection, spare: int
) -> None:
    budget = contract.total + spare
    both = contract.extend(extra, budget)
    assert both.total <= budget
    assert both.sinks >= contract.sinks
    assert both.recents >= contract.recents
    # Nothing is protected that nobody asked for.
    assert both.sinks <= max(contract.sinks, extra.sinks)
    assert both.recents <= max(contract.recents, extra.recents)


def test_extending_gives_a_policy_all_it_asks_for_where_it_fits() -> None:
    contract, extra = Protection(sinks=4, recents=16), Protection(sinks=0, recents=32)
    assert contract.extend(extra, 36) == Protection(sinks=4, recents=32)
    assert contract.extend(extra, 30) == Protection(sinks=4, recents=26)
    assert contract.extend(Protection(sinks=9, recents=0), 22) == Protection(sinks=6, recents=16)


def test_a_contract_lists_all_that_is_held_fixed() -> None:
    contract = Contract(
        context=512, protection=Protection(sinks=1, recents=2), question=QuestionMode.SEEN
    )
    assert contract.as_dict() == {
        "context": 512,
        "sinks": 1,
        "recents": 2,
        "question": "seen",
        "evict": EvictMode.PREFILL.value,
    }
