from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.cell import Cell
from kvharness.engine.answer import Answers
from kvharness.engine.score import (
    Scored,
    evidence_share,
    mean_metrics,
    merge_record,
    score_question,
)
from kvharness.items.item import Item, Question
from kvharness.pretrained.prompt import Encoder
from kvharness.records.record import QuestionRecord, Record, Seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

CELL = Cell(suite="qa", policy="snapkv", retention=Fraction(1, 4), seed=3)


def make_question(answer: Sequence[int], slots: Sequence[tuple[int, int]]) -> Question:
    return Question(
        text="Which?",
        question=(1,),
        tail=(2,),
        answer=tuple(answer),
        slots=tuple(slots),
        reference="",
        references=("the lighthouse",),
        facts=("lighthouse",),
        decoys=("bakery", "harbour"),
    )


def make_answers(
    greedy: Sequence[Sequence[int]],
    *,
    logprob: Sequence[Sequence[float]] | None = None,
    generated: list[list[int] | None] | None = None,
) -> Answers:
    zeros = [[0.0] * len(row) for row in greedy]
    return Answers(
        greedy=[torch.tensor(row) for row in greedy],
        logprob=[torch.tensor(row) for row in (logprob or zeros)],
        generated=generated or [None] * len(greedy),
        cache_bytes=0,
        seconds=0.0,
    )


@pytest.fixture(scope="module")
def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer)


@given(data=st.data(), length=st.integers(1, 8))
def test_a_question_is_scored_as_by_hand(
    encoder: Encoder, data: st.DataObject, length: int
) -> None:
    tokens = st.lists(st.integers(0, 2), min_size=length, max_size=length)
    due, mine, theirs = (data.draw(tokens) for _ in range(3))
    numbers = st.floats(-20, 0, width=32)
    logprob = data.draw(st.lists(numbers, min_size=length, max_size=length))
    cuts = data.draw(st.lists(st.integers(0, length), unique=True, min_size=2, max_size=5))
    edges = sorted(cuts)
    slots = list(zip(edges[::2], edges[1::2], strict=False))
    question = make_question(due, slots)
    record = score_question(
        question,
        1,
        make_answers([[9], mine], logprob=[[0.0], logprob]),
        make_answers([[9], theirs]),
        encoder.text,
    )
    right = [sum(mine[i] == due[i] for i in range(start, end)) for start, end in slots]
    sizes = [end - start for start, end in slots]
    whole = [r == s for r, s in zip(right, sizes, strict=True)]
    assert record.exact == pytest.approx(sum(whole) / len(whole))
    assert record.slot_accuracy == pytest.approx(sum(right) / sum(sizes))
    assert record.nll == pytest.approx(-sum(logprob) / length, rel=1e-5, abs=1e-6)
    assert record.agreement == sum(a == b for a, b in zip(mine, theirs, strict=True)) / length
    assert record.generated is None
    assert record.text_metrics == {}


def test_a_wrong_token_costs_its_whole_fact_and_only_that(encoder: Encoder) -> None:
    question = make_question([1, 2, 3, 4, 5], [(0, 2), (3, 5)])
    full = make_answers([[1, 2, 3, 4, 5]])
    for greedy, exact, accuracy in (
        ([1, 2, 3, 4, 5], 1.0, 1.0),
        ([1, 2, 0, 4, 5], 1.0, 1.0),  # outside of the facts
        ([1, 0, 3, 4, 5], 0.5, 0.75),
        ([1, 0, 3, 4, 0], 0.0, 0.5),
    ):
        record = score_question(question, 0, make_answers([greedy]), full, encoder.text)
        assert (record.exact, record.slot_accuracy) == (exact, accuracy)


def test_generated_text_gets_text_metrics(encoder: Encoder) -> None:
    question = make_question([1], [(0, 1)])
    reply = list(encoder.ids("\n The lighthouse, not the bakery. "))
    answers = make_answers([[1]], generated=[reply])
    record = score_question(question, 0, answers, answers, encoder.text)
    assert record.generated == "The lighthouse, not the bakery."
    assert record.text_metrics["contains"] == 1
    assert record.text_metrics["fact_recall"] == 1
    assert record.text_metrics["decoy_rate"] == 0.5
    assert 0 < record.text_metrics["f1"] < 1


def test_an_empty_reply_is_a_reply(encoder: Encoder) -> None:
    answers = make_answers([[1]], generated=[[]])
    record = score_question(make_question([1], [(0, 1)]), 0, answers, answers, encoder.text)
    assert record.generated == ""
    assert record.text_metrics["contains"] == 0


@given(data=st.data())
def test_the_share_of_evidence_is_counted(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 99))
    mask = torch.rand(2, 3, 10, generator=torch.Generator().manual_seed(seed)) < 0.5
    ends = st.integers(0, 10)
    pairs = data.draw(st.lists(st.tuples(ends, ends), max_size=4))
    spans = [(min(pair), max(pair)) for pair in pairs]
    tokens = {j for start, end in spans for j in range(start, end)}
    share = evidence_share(mask, spans)
    if not tokens:
        assert share is None
        return
    kept = [bool(mask[la, h, j]) for la in range(2) for h in range(3) for j in tokens]
    assert share == pytest.approx(sum(kept) / len(kept))


def make_record(**changes: Any) -> QuestionRecord:
    values = {"exact": 1.0, "slot_accuracy": 1.0, "nll": 0.5, "agreement": 1.0}
    return QuestionRecord(**{**values, **changes})


def test_metrics_are_means_over_the_questions_that_have_them() -> None:
    questions = [
        make_record(text_metrics={"f1": 0.5, "decoy_rate": 1.0}),
        make_record(exact=0.0, nll=1.5, text_metrics={"f1": 1.0}),
        make_record(agreement=0.25),
    ]
    assert mean_metrics(questions) == pytest.approx(
        {
            "exact": 2 / 3,
            "slot_accuracy": 1.0,
            "nll": 2.5 / 3,
            "agreement": 0.75,
            "f1": 0.75,
            "decoy_rate": 1.0,
        }
    )


PART = Scored(
    questions=(make_record(exact=0.5), make_record(exact=1.0)),
    evidence_kept=0.5,
    kept=(10, 10),
    tokens=40,
    realised_retention=0.25,
    cache_bytes=1000,
    mask_digest="aa",
    seconds=Seconds(prefill=1.0, select=2.0, decode=3.0),
)


@pytest.fixture
def item() -> Item:
    question = make_question([1, 2], [(0, 2)])
    return Item(
        suite="qa",
        name="qa-s3-00",
        variant="facts",
        seed=3,
        context=(1, 2, 3),
        text="",
        questions=(question,),
    )


def merged(item: Item, *parts: Scored, score_name: str = "exact") -> Record:
    return merge_record(CELL, "some key", item, parts, score_name=score_name)


def test_one_pass_is_a_record_as_it_stands(item: Item) -> None:
    record = merged(item, PART)
    assert record.key == "some key"
    assert (record.suite, record.policy, record.retention, record.seed) == (
        "qa",
        "snapkv",
        "0.25",
        3,
    )
    assert (record.item, record.item_digest, record.variant) == (item.name, item.digest, "facts")
    assert record.questions == PART.questions
    assert (record.score, record.score_name) == (0.75, "exact")
    assert record.metrics["nll"] == 0.5
    assert record.evidence_kept == 0.5
    assert record.kept == (10, 10)
    assert (record.tokens, record.cache_bytes) == (40, 1000)
    assert record.realised_retention == 0.25
    assert record.mask_digest == ("aa",)
    assert record.seconds == PART.seconds


def test_several_passes_are_averaged(item: Item) -> None:
    other = replace(
        PART,
        questions=(make_record(exact=0.0),),
        evidence_kept=None,
        kept=(12, 13),
        tokens=43,
        realised_retention=0.35,
        cache_bytes=1101,
        mask_digest="bb",
    )
    record = merged(item, PART, other)
    assert len(record.questions) == 3
    assert record.score == pytest.approx(0.5)
    # A mean over the passes that know their evidence.
    assert record.evidence_kept == 0.5
    assert record.kept == (11, 12)
    assert record.tokens in {41, 42}
    assert record.realised_retention == pytest.approx(0.3)
    assert record.cache_bytes in {1050, 1051}
    assert record.mask_digest == ("aa", "bb")
    assert record.seconds == Seconds(prefill=2.0, select=4.0, decode=6.0)


def test_without_evidence_no_share_of_it(item: Item) -> None:
    assert merged(item, replace(PART, evidence_kept=None)).evidence_kept is None


def test_the_headline_is_the_metric_of_the_suite(item: Item) -> None:
    record = merged(item, PART, score_name="slot_accuracy")
    assert (record.score, record.score_name) == (1.0, "slot_accuracy")


def test_a_record_survives_json(item: Item) -> None:
    import json

    record = merged(item, PART)
    assert Record.from_dict(json.loads(json.dumps(record.as_dict()))) == record
