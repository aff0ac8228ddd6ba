from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.items.item import Question
from kvharness.items.text_metrics import (
    contains,
    decoy_rate,
    exact_match,
    fact_recall,
    rouge_l,
    squad_normalise,
    text_metrics,
    token_f1,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_REFERENCE_METRICS = [token_f1, exact_match, contains, rouge_l]
_words = st.sampled_from(["The", "ferry", "ferries", "12", "3125", "a", "Lyme-Regis,", "two", "!"])
_phrases = st.lists(_words, max_size=8).map(" ".join)
_texts = st.one_of(_phrases, st.text(max_size=30))

_QUESTION = Question(
    text="Who came?",
    question=(1,),
    tail=(2,),
    answer=(3,),
    slots=((0, 1),),
    reference="Ada",
    references=("Ada", "Ada Lovell"),
)


def test_normalise_is_squads() -> None:
    assert (
        squad_normalise(" The  Quick-Brown fox, an\tanimal; a FOX! ") == "quickbrown fox animal fox"
    )
    assert squad_normalise("theatre another") == "theatre another"
    assert squad_normalise("«Ōsaka»") == "«ōsaka»"


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("the red boat", ["red boat"], 1.0),
        ("red boat", ["blue boat"], 0.5),
        ("boat boat", ["boat"], 2 / 3),
        ("train", ["boat", "slow train"], 2 / 3),
        ("train", ["boat"], 0.0),
        ("", [""], 1.0),
        ("The!", ["a"], 1.0),
        ("", ["boat"], 0.0),
        ("boat", [""], 0.0),
        ("boat", [], 0.0),
    ],
)
def test_f1(answer: str, references: list[str], expected: float) -> None:
    assert token_f1(answer, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("It carried 12 people.", "12", 1.0),
        ("It carried 3125 people.", "12", 0.0),
        ("It carried 12.", "12", 1.0),
        ("It was the old Mill road", "old mill", 1.0),
        ("It was an older mill", "old mill", 0.0),
        ("A catalogue", "cat", 0.0),
        ("cat", "cat", 1.0),
        ("cat", "the", 0.0),
        ("the", "a", 1.0),
        ("", "cat", 0.0),
    ],
)
def test_contains_respects_word_borders(answer: str, reference: str, expected: float) -> None:
    assert contains(answer, [reference]) == expected


def test_exact_match_takes_any_reference() -> None:
    assert exact_match("The Mill.", ["road", "mill"]) == 1.0
    assert exact_match("Mill road", ["road", "mill"]) == 0.0
    assert exact_match("Mill", []) == 0.0


def test_fact_recall_and_decoy_rate_are_shares() -> None:
    answer = "They paid 40 crowns to Ines, not 400."
    assert fact_recall(answer, ["40", "Ines", "4", "Olaf"]) == 0.5
    assert decoy_rate(answer, ["400", "41", "4000", "Olaf"]) == 0.25
    for share in (fact_recall, decoy_rate):
        with pytest.raises(ValueError, match="at least one"):
            share(answer, [])


def test_rouge_is_stemmed_and_takes_the_best_reference() -> None:
    assert rouge_l("ferries sailed", ["nothing alike", "ferry sails"]) == pytest.approx(1.0)
    assert rouge_l("one two three four", ["one three"]) == pytest.approx(2 / 3)
    assert rouge_l("one", []) == 0.0


def test_metrics_of_a_question_without_facts() -> None:
    metrics = text_metrics("It was Ada Lovell.", _QUESTION)
    assert metrics == {
        "f1": pytest.approx(2 / 3),
        "contains": 1.0,
        "rouge_l": pytest.approx(2 / 3),
    }


def test_metrics_of_a_question_with_facts_and_decoys() -> None:
    question = replace(_QUESTION, facts=("Ada", "40"), decoys=("41",))
    metrics = text_metrics("Ada paid 41", question)
    assert metrics["fact_recall"] == 0.5
    assert metrics["decoy_rate"] == 1.0


@given(answer=_texts, references=st.lists(_texts, max_size=4), rng=st.randoms())
@pytest.mark.parametrize("metric", _REFERENCE_METRICS)
def test_bounds_and_order_of_references(
    metric: Callable[[str, list[str]], float], answer: str, references: list[str], rng: Random
) -> None:
    score = metric(answer, references)
    assert 0.0 <= score <= 1.0
    shuffled = list(references)
    rng.shuffle(shuffled)
    assert metric(answer, shuffled) == score


@given(text=_texts, others=st.lists(_texts, max_size=3))
@pytest.mark.parametrize("metric", [token_f1, exact_match, contains])
def test_identity_scores_one(
    metric: Callable[[str, list[str]], float], text: str, others: list[str]
) -> None:
    assert metric(text, [*others, text]) == 1.0


@given(words=st.lists(st.sampled_from(["ferry", "boats", "12", "running"]), min_size=1))
def test_identity_scores_one_in_rouge(words: list[str]) -> None:
    assert rouge_l(" ".join(words), [" ".join(words)]) == pytest.approx(1.0)


@given(answer=_texts, references=st.lists(_texts, min_size=1, max_size=3))
def test_an_exact_match_is_contained_and_has_full_f1(answer: str, references: list[str]) -> None:
    if exact_match(answer, references):
        assert contains(answer, references) == token_f1(answer, references) == 1.0


@given(answer=_texts, values=st.lists(_texts, min_size=1, max_size=4))
def test_shares_are_means_of_contains(answer: str, values: list[str]) -> None:
    expected = sum(contains(answer, [value]) for value in values) / len(values)
    assert fact_recall(answer, values) == decoy_rate(answer, values) == pytest.approx(expected)


@given(answer=_phrases, reference=_phrases)
def test_f1_agrees_with_a_naive_version(answer: str, reference: str) -> None:
    assert token_f1(answer, [reference]) == pytest.approx(_naive_f1(answer, reference))


def _naive_f1(answer: str, reference: str) -> float:
    mine, gold = _naive_words(answer), _naive_words(reference)
    if not mine or not gold:
        return float(mine == gold)
    common = sum(min(count, gold[word]) for word, count in mine.items())
    if common == 0:
        return 0.0
    precision, recall = common / mine.total(), common / gold.total()
    return 2 * precision * recall / (precision + recall)


def _naive_words(text: str) -> Counter[str]:
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return Counter(word for word in re.split(r"\s+", bare) if word not in {"", "a", "an", "the"})
