"""What every suite promises; what each one asks is tested in tests/items."""

from __future__ import annotations

import re
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness.errors import UsageProblem
from kvharness.items.drawing import Drawing
from kvharness.items.suites import SUITES, Suite
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kvharness.items.item import Item, Question

HARD = {"qa-records", "qa-two-hop", "qa-comparison"}
COLLECTIONS = Path(__file__).parents[2] / "suites"
SINKS, RECENTS = 4, 16


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


#: Nothing is asked in a running text.
ASKING = [name for name, suite in SUITES.items() if suite.solvable]


@pytest.fixture(scope="module", params=ASKING)
def suite(request: pytest.FixtureRequest) -> Suite:
    return SUITES[request.param]


@pytest.fixture(scope="module")
def items(suite: Suite, encoder: Encoder) -> list[Item]:
    return _draw(suite, encoder)


def _draw(suite: Suite, encoder: Encoder, **changes: Any) -> list[Item]:
    asked = {"context": 1000, "seed": 1, "count": 12, **changes}
    return suite.draw(Drawing(encoder=encoder, **asked))


def _questions(items: list[Item]) -> list[tuple[Item, Question]]:
    return [(item, question) for item in items for question in item.questions]


def _digests(items: list[Item]) -> list[str]:
    return [item.digest for item in items]


def _least(suite: Suite, encoder: Encoder, count: int) -> int:
    with pytest.raises(UsageProblem, match="--kv-context 30 is too short") as caught:
        _draw(suite, encoder, context=30, count=count)
    found = re.search(r"it needs (\d+) tokens or more", str(caught.value))
    assert found
    return int(found[1])


def test_suites_are_filed_under_their_names() -> None:
    assert all(name == suite.name for name, suite in SUITES.items())
    assert {name for name, suite in SUITES.items() if suite.hard} == HARD
    assert {name for name, suite in SUITES.items() if suite.real} == {"qa", "summarization"}


def test_every_suite_is_collected_once() -> None:
    texts = {path.name: path.read_text("utf-8") for path in sorted(COLLECTIONS.glob("*.py"))}
    marked = [
        (name, file)
        for file, text in texts.items()
        for name in re.findall(r'kv_suite\("([^"]+)"\)', text)
    ]
    assert sorted(name for name, _ in marked) == sorted(SUITES)
    for name, file in marked:
        assert SUITES[name].alone != file.startswith("test_"), "what pytest collects by itself"
        assert file in SUITES[name].collected or not SUITES[name].alone


def test_scores_are_metrics_of_a_forward_pass(suite: Suite) -> None:
    assert suite.score in {"exact", "slot_accuracy"}
    assert suite.summary
    assert not suite.summary.endswith(".")


def test_items_carry_their_origin(suite: Suite, items: list[Item]) -> None:
    assert [item.name for item in items] == [f"{suite.name}-s1-{n:02d}" for n in range(12)]
    assert {(item.suite, item.seed) for item in items} == {(suite.name, 1)}


@settings(max_examples=8)
@given(context=st.integers(520, 1500), seed=st.integers(0, 2**32))
@pytest.mark.parametrize("name", SUITES)
def test_contexts_are_as_long_as_asked(
    encoder: Encoder, name: str, context: int, seed: int
) -> None:
    items = _draw(SUITES[name], encoder, context=context, seed=seed, count=3)
    assert [len(item.context) for item in items] == [context] * 3


def test_the_text_is_that_of_the_context(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        assert encoder.text(item.context) == encoder.template.head + item.text


def test_evidence_is_whole_sentences(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        for start, end in item.evidence:
            sentence = encoder.text(item.context[start:end])
            assert re.fullmatch(r" [A-Z].+\.", sentence)
            assert item.text.count(sentence) == 1


def test_evidence_holds_the_facts(encoder: Encoder, items: list[Item]) -> None:
    for item, question in _questions(items):
        told = "".join(encoder.text(item.context[a:b]) for a, b in question.evidence)
        assert all(fact in told for fact in question.facts)


def test_evidence_is_not_what_every_policy_keeps(items: list[Item]) -> None:
    for item in items:
        assert item.evidence[0][0] >= SINKS
        assert max(end for _, end in item.evidence) <= len(item.context) - RECENTS


@pytest.mark.parametrize("name", SUITES)
def test_every_value_occurs_once(encoder: Encoder, name: str) -> None:
    for item, question in _questions(_draw(SUITES[name], encoder)):
        for value in question.facts:
            assert len(re.findall(rf"\b{value}\b", item.text, re.IGNORECASE)) == 1, value


def test_no_value_is_part_of_another(items: list[Item]) -> None:
    for item in items:
        values = {value for q in item.questions for value in (*q.facts, *q.decoys)}
        assert not [pair for pair in permutations(values, 2) if pair[0].lower() in pair[1].lower()]


def test_decoys_are_wrong(items: list[Item]) -> None:
    for item, question in _questions(items):
        assert not set(question.facts) & set(question.decoys)
        assert all(decoy in item.text for decoy in question.decoys)


def test_slots_decode_to_the_facts(encoder: Encoder, items: list[Item]) -> None:
    for _, question in _questions(items):
        slots = [encoder.text(question.answer[a:b]).strip() for a, b in question.slots]
        assert slots == list(question.facts)
        assert encoder.text(question.answer) == f" {question.reference}"
        assert question.references == (question.reference,)


def test_a_question_has_all_its_pieces(encoder: Encoder, items: list[Item]) -> None:
    for _, question in _questions(items):
        assert encoder.text(question.question) == f"\n\n{question.text}"
        assert encoder.text(question.tail).startswith(encoder.template.turn)
        assert not encoder.text(question.tail).endswith((" ", "\n"))
        assert question.max_new_tokens >= len(question.answer)


def test_a_seed_gives_the_same_items_always(
    suite: Suite, encoder: Encoder, items: list[Item]
) -> None:
    assert _draw(suite, encoder) == items


def test_seeds_share_no_item(suite: Suite, encoder: Encoder, items: list[Item]) -> None:
    digests = _digests(items) + _digests(_draw(suite, encoder, seed=2))
    assert len(set(digests)) == len(digests)


def test_an_item_does_not_depend_on_the_count(
    suite: Suite, encoder: Encoder, items: list[Item]
) -> None:
    fewer = _draw(suite, encoder, count=4)
    if suite.name == "needle":
        # A needle's depth is stratified over the count; everything else stays.
        asked = [(q.text, q.answer, q.decoys) for _, q in _questions(fewer)]
        assert asked == [(q.text, q.answer, q.decoys) for _, q in _questions(items[:4])]
    else:
        assert fewer == items[:4]


def test_the_context_decides_where_and_not_what(
    suite: Suite, encoder: Encoder, items: list[Item]
) -> None:
    longer = _draw(suite, encoder, context=1300)
    for short, long in zip(_questions(items), _questions(longer), strict=True):
        assert short[1].text == long[1].text
        assert short[1].answer == long[1].answer


def test_too_short_a_context_names_one_that_works(suite: Suite, encoder: Encoder) -> None:
    least = _least(suite, encoder, count=1)
    (item,) = _draw(suite, encoder, context=least, count=1)
    assert len(item.context) == least
    with pytest.raises(UsageProblem):
        _draw(suite, encoder, context=least - 1, count=1)


@pytest.mark.parametrize("name", ["needle", "qa", "summarization"])
def test_too_short_a_context_names_one_that_works_for_all_items(
    encoder: Encoder, name: str
) -> None:
    least = _least(SUITES[name], encoder, count=12)
    assert len(_draw(SUITES[name], encoder, context=least)) == 12
