from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from kvharness.cell import Group
from kvharness.contract import Contract
from kvharness.prompt import Encoder
from kvharness.supply import is_generated, items_of, longest

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.settings import Settings

ROW = {
    "context": ["Ann keeps bees.", "Bob keeps a very old boat."],
    "questions": [{"question": "What does Ann keep?", "answers": ["bees"]}],
}


@pytest.fixture
def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer)


def settings(**data: str) -> Settings:
    made = SimpleNamespace(
        contract=Contract(context=300), items=2, haystack=None, data=tuple(data.items())
    )
    return cast("Settings", made)


def test_a_suite_draws_its_own_items(encoder: Encoder) -> None:
    items = items_of(Group("qa", 3), settings(), encoder)
    assert [item.name for item in items] == ["qa-s3-00", "qa-s3-01"]
    assert {len(item.context) for item in items} == {300}


def test_data_takes_the_place_of_one_suite(encoder: Encoder, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join([json.dumps(ROW)] * 2), encoding="utf-8")
    given = settings(qa=str(file))
    assert [is_generated(name, given) for name in ("qa", "needle")] == [False, True]
    items = items_of(Group("qa", 0), given, encoder)
    assert {q.references for item in items for q in item.questions} == {("bees",)}
    assert len(items_of(Group("needle", 0), given, encoder)) == 2


def test_the_longest_counts_question_and_answer(encoder: Encoder) -> None:
    items = items_of(Group("qa", 0), settings(), encoder)
    whole = [
        len(item.context) + len(q.question) + len(q.tail) + max(len(q.answer), q.max_new_tokens)
        for item in items
        for q in item.questions
    ]
    assert longest(items) == max(whole) > 300
    assert longest(items[:1]) <= longest(items)
