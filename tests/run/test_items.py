from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from kvharness.cell import Group
from kvharness.contract import Contract
from kvharness.errors import UsageProblem
from kvharness.pretrained.find import ModelSource, find_model
from kvharness.run.items import Supply, longest

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.run.settings import Settings

ROW = {
    "context": ["Ann keeps bees.", "Bob keeps a very old boat."],
    "questions": [{"question": "What does Ann keep?", "answers": ["bees"]}],
}
WINDOW = 2048


@pytest.fixture
def source(tiny_model: Path) -> ModelSource:
    return find_model(str(tiny_model))


def settings(context: int = 300, haystack: Path | None = None, **data: str) -> Settings:
    made = SimpleNamespace(
        contract=Contract(context=context), items=2, haystack=haystack, data=tuple(data.items())
    )
    return cast("Settings", made)


def test_a_suite_draws_its_own_items(source: ModelSource) -> None:
    items = Supply(settings(), source).items(Group("qa", 3))
    assert [item.name for item in items] == ["qa-s3-00", "qa-s3-01"]
    assert {len(item.context) for item in items} == {300}


def test_data_takes_the_place_of_one_suite(source: ModelSource, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join([json.dumps(ROW)] * 2), encoding="utf-8")
    supply = Supply(settings(qa=str(file)), source)
    assert [supply.is_generated(name) for name in ("qa", "needle")] == [False, True]
    items = supply.items(Group("qa", 0))
    assert {q.references for item in items for q in item.questions} == {("bees",)}
    assert len(supply.items(Group("needle", 0))) == 2


def test_the_longest_counts_question_and_answer(source: ModelSource) -> None:
    items = Supply(settings(), source).items(Group("qa", 0))
    whole = [
        len(item.context) + len(q.question) + len(q.tail) + max(len(q.answer), q.max_new_tokens)
        for item in items
        for q in item.questions
    ]
    assert longest(items) == max(whole) > 300


@pytest.mark.parametrize("suite", ["needle", "qa", "summarization"])
def test_questions_that_do_not_fit_the_window_are_found_ahead(
    source: ModelSource, suite: str
) -> None:
    group = Group(suite, 1)
    beside = longest(Supply(settings(400), source).items(group)) - 400
    with pytest.raises(UsageProblem, match=r"and up to \d+ tokens of question and answer"):
        Supply(settings(WINDOW - beside // 2), source).check([group])
    Supply(settings(WINDOW - 2 * beside), source).check([group])


def test_what_is_drawn_ahead_is_not_drawn_again(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, group = settings(WINDOW - 500), Group("needle", 0)
    drawn = Supply(near, source).items(group)
    supply = Supply(near, source)
    supply.check([Group("needle", 2), group])
    monkeypatch.setattr(Supply, "_draw", None)
    assert supply.items(group) == drawn


def test_far_from_the_window_nothing_is_drawn(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supply, "encoder", None)
    Supply(settings(), source).check([Group("needle", 0)])


def test_other_problems_are_left_to_their_group(source: ModelSource, tmp_path: Path) -> None:
    supply = Supply(settings(WINDOW - 500, tmp_path / "no-such-book.txt"), source)
    supply.check([Group("needle", 0)])
    with pytest.raises(Exception, match="no-such-book"):
        supply.items(Group("needle", 0))
