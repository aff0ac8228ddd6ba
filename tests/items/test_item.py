from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.items.item import Item, Question

QUESTION = Question(
    text="What?",
    question=(1, 2),
    tail=(3,),
    answer=(4, 5),
    slots=((0, 1),),
    reference="this",
    references=("this", "that"),
    facts=("this",),
    decoys=("those",),
    evidence=((7, 9),),
    max_new_tokens=8,
)
ITEM = Item(
    suite="qa",
    name="qa-s0-00",
    variant="facts",
    seed=0,
    context=tuple(range(20)),
    text="some text",
    questions=(QUESTION,),
)


def _asking(**changes: Any) -> Item:
    return replace(ITEM, questions=(replace(QUESTION, **changes),))


@pytest.mark.parametrize(
    "changes",
    [
        {"question": (1, 3)},
        {"tail": (4,)},
        {"answer": (4, 6)},
        {"slots": ((0, 2),)},
        {"references": ("this",)},
        {"facts": ("that",)},
        {"decoys": ()},
        {"evidence": ((7, 10),)},
        {"max_new_tokens": 9},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_digest_covers_all_that_is_read_or_scored(changes: dict[str, Any]) -> None:
    assert _asking(**changes).digest != ITEM.digest


def test_the_digest_covers_context_and_questions() -> None:
    assert replace(ITEM, context=tuple(range(21))).digest != ITEM.digest
    assert replace(ITEM, questions=(QUESTION, QUESTION)).digest != ITEM.digest


def test_the_digest_leaves_out_what_is_for_people() -> None:
    assert replace(ITEM, name="qa-s1-01", seed=1, text="other text").digest == ITEM.digest
    assert _asking(text="Which?").digest == ITEM.digest


def test_the_identity_has_what_a_record_says_of_an_item() -> None:
    swapped = replace(ITEM, questions=(replace(QUESTION, evidence=()), QUESTION))
    again = replace(ITEM, questions=(QUESTION, replace(QUESTION, evidence=())))
    others = [
        replace(ITEM, name="qa-s0-01"),
        replace(ITEM, variant="chains"),
        _asking(answer=(4, 6)),
        swapped,
        again,
    ]
    found = [json.dumps(each.identity) for each in (ITEM, *others)]
    assert len(set(found)) == len(found)
    # All evidence together is the same, and so is what the model reads.
    assert swapped.digest == again.digest
    assert replace(ITEM, seed=1, text="other text").identity == ITEM.identity


def test_the_digest_is_the_same_on_every_machine() -> None:
    # Stores hold it: if this value changes, every stored record is computed again.
    assert ITEM.digest == "c2217ee2affc9736"


def test_pieces_do_not_run_into_each_other() -> None:
    assert _asking(question=(1, 2, 3), tail=()).digest != _asking(question=(1, 2), tail=(3,)).digest
    assert _asking(question=(12,)).digest != _asking(question=(1, 2)).digest


@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(9, 19)), max_size=4), min_size=1))
def test_evidence_is_every_span_once_and_in_order(spans: list[list[tuple[int, int]]]) -> None:
    questions = tuple(replace(QUESTION, evidence=tuple(each)) for each in spans)
    evidence = replace(ITEM, questions=questions).evidence
    assert list(evidence) == sorted(set().union(*spans))


def test_items_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        ITEM.seed = 1  # type: ignore[misc]
