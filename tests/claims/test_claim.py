from __future__ import annotations

import pytest

from kvharness.claims.claim import Column
from kvharness.statistics.region import Kind
from tests.claims.conftest import claim


def names(**changes: object) -> list[str]:
    return [f"{part}: {part.policy} / {part.baseline}" for part in claim(**changes).comparisons()]


def test_every_suite_and_retention_is_a_part() -> None:
    assert names(suites=("qa", "needle"), retentions=("0.1", "0.5")) == [
        "qa at 0.1: snapkv-r0.1 / random-r0.1",
        "qa at 0.5: snapkv-r0.5 / random-r0.5",
        "needle at 0.1: snapkv-r0.1 / random-r0.1",
        "needle at 0.5: snapkv-r0.5 / random-r0.5",
    ]


def test_the_baseline_may_have_a_retention_of_its_own() -> None:
    assert names(baseline_retention="0.4") == ["qa at 0.25: snapkv-r0.25 / random-r0.4"]


def test_fixed_anchors_have_no_retention() -> None:
    assert names(baseline="full", retentions=("0.1", "0.5")) == [
        "qa at 0.1: snapkv-r0.1 / full",
        "qa at 0.5: snapkv-r0.5 / full",
    ]
    assert names(policy="full", retentions=("0.1", "0.5"))[1] == "qa at 0.5: full / random-r0.5"


def test_two_fixed_anchors_are_compared_once() -> None:
    both = names(policy="full", baseline="floor", retentions=("0.1", "0.5"))
    assert both == ["qa: full / floor"]


def test_policies_may_have_parameters_and_parts() -> None:
    given = claim(policy="ada(snapkv(window=16))", baseline="snapkv( window = 16 )")
    assert [spec.slug for spec in given.policies] == ["ada+snapkv+window16", "snapkv+window16"]
    assert Column.of("ada+snapkv+window16", "0.1").retention == "0.1"


@pytest.mark.parametrize(
    ("kind", "margin", "words"),
    [
        (Kind.BETTER, 0.0, "snapkv is better than random, in nll"),
        (Kind.BETTER, 0.1, "snapkv is better than random by more than 0.1, in nll"),
        (Kind.NOT_BETTER, 0.1, "snapkv is not better than random by more than 0.1, in nll"),
        (Kind.NOT_WORSE, 0.1, "snapkv is not worse than random by more than 0.1, in nll"),
        (Kind.EQUIVALENT, 0.1, "snapkv equals random within 0.1, in nll"),
    ],
)
def test_a_claim_says_in_words_what_it_says(kind: Kind, margin: float, words: str) -> None:
    assert claim(kind=kind, margin=margin).statement() == words


def test_the_words_name_the_baselines_own_retention() -> None:
    assert claim(baseline_retention="0.4").statement().endswith("than random kept at 0.4, in nll")
