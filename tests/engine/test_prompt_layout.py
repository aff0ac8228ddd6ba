"""The whole prompt is compressed, and its last token is read once more from what is left of it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import ColumnSums, Protection
from kvharness.contract import EvictMode, QuestionMode
from kvharness.engine.answer import Request, answer
from kvharness.engine.item_run import run_item
from kvharness.engine.task import Failure
from kvharness.errors import UsageProblem
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import Kept
from kvharness.model.rolling_cache import HeldCache
from kvharness.policy.observation.reading import AttentionCall
from kvharness.policy.view import Positions
from kvharness.records.record import Record
from tests.engine.test_item_run import (
    CONTRACT,
    ENTRY,
    HALF,
    KV_HEADS,
    LAYERS,
    Masks,
    make_item,
    make_question,
    make_setup,
    named,
    records_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvharness.items.item import Item, Question
    from kvharness.model.loaded import Runtime

PROMPT = replace(CONTRACT, question=QuestionMode.PROMPT)


@pytest.fixture(scope="module")
def item() -> Item:
    return make_item()


def prompt_of(item: Item, question: Question) -> tuple[int, ...]:
    return (*item.context, *question.question, *question.tail)


def naive(plain: PreTrainedModel, prompt: tuple[int, ...], due: tuple[int, ...], kept: Any) -> Any:
    """Log-probabilities of an answer: only the prompt's last token and the answer miss entries."""
    ids = (*prompt, *due[:-1])
    total, last = len(ids), len(prompt) - 1
    order = torch.arange(total)
    visible = order[:, None] >= order[None, :]
    evicted = ~torch.cat((kept, torch.ones(total - len(prompt), dtype=torch.bool)))
    evicted[last] = False
    visible[last:] &= ~evicted
    mask = torch.zeros(total, total).masked_fill_(~visible, float("-inf"))[None, None]
    with torch.inference_mode():
        logits = plain(torch.tensor([ids]), attention_mask=mask, use_cache=False).logits[0]
    rows = logits[last:].float().log_softmax(dim=-1)
    return rows[range(len(due)), list(due)]


@pytest.mark.parametrize("policy", ["random-tied", "position"])
@pytest.mark.parametrize("retention", [Fraction(1, 4), HALF])
def test_answers_are_those_of_a_masked_model(
    policy: str,
    retention: Fraction,
    runtime: Runtime,
    plain_model: PreTrainedModel,
    item: Item,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = Masks(monkeypatch)
    (record,) = records_of(run_item(make_setup(runtime, PROMPT), item, [named(policy, retention)]))
    found = [mask for each in masks.of.values() for mask in each]
    assert len(found) == len(item.questions)
    for question, answered, mask in zip(item.questions, record.questions, found, strict=True):
        prompt = prompt_of(item, question)
        assert mask.shape == (LAYERS, KV_HEADS, len(prompt))
        assert (mask == mask[0, 0]).all(), "one set for all heads, or the naive model is another"
        assert mask[..., -1].all()
        expected = -naive(plain_model, prompt, question.answer, mask[0, 0]).mean()
        assert answered.nll == pytest.approx(float(expected), rel=1e-4)


def test_the_full_cache_answers_as_it_does_in_every_layout(runtime: Runtime, item: Item) -> None:
    (usual,) = records_of(run_item(make_setup(runtime), item, [named("full")]))
    (whole,) = records_of(run_item(make_setup(runtime, PROMPT), item, [named("full")]))
    for one, other in zip(usual.questions, whole.questions, strict=True):
        assert other.nll == pytest.approx(one.nll, rel=1e-4)
    sizes = [len(prompt_of(item, question)) for question in item.questions]
    assert whole.cache_bytes == pytest.approx(sum(sizes) / 3 * LAYERS * KV_HEADS * ENTRY, abs=ENTRY)


@pytest.mark.parametrize("evict", EvictMode)
def test_with_everything_kept_it_answers_as_the_full_cache(
    evict: EvictMode, runtime: Runtime
) -> None:
    """Of one token: while decoding, each further one costs an entry."""
    one = make_item(*(make_question(n, answer=(77 + n,), slots=((0, 1),)) for n in range(3)))
    policy = {EvictMode.BLOCKS: "keydiff"}.get(evict, "random")
    contract = replace(PROMPT, evict=evict)
    tasks = [named("full"), named(policy, Fraction(1))]
    full, kept = records_of(run_item(make_setup(runtime, contract), one, tasks))
    for mine, other in zip(full.questions, kept.questions, strict=True):
        assert other.nll == pytest.approx(mine.nll, abs=1e-4)


@pytest.mark.parametrize("policy", ["h2o", "tova", "streaming-llm", "random"])
def test_while_decoding_the_budget_is_held(policy: str, runtime: Runtime) -> None:
    one = make_item(make_question(0))
    contract = replace(PROMPT, evict=EvictMode.DECODE)
    (record,) = records_of(run_item(make_setup(runtime, contract), one, [named(policy, HALF)]))
    assert record.held is not None
    budget = round(len(prompt_of(one, one.questions[0])) / 2 + 0.01)
    assert (record.held.least, record.held.most) == (budget, budget)


def test_the_first_answer_token_sees_what_is_left(runtime: Runtime) -> None:
    """Official scripts take it from the full cache, so that any policy would be right on it."""
    one = make_item(make_question(0, answer=(77,), slots=((0, 1),)))
    tasks = [named("full"), named("random", Fraction(1, 5))]
    full, random = records_of(run_item(make_setup(runtime, PROMPT), one, tasks))
    assert abs(full.questions[0].nll - random.questions[0].nll) > 1e-3


@pytest.mark.parametrize("evict", [EvictMode.PREFILL, EvictMode.BLOCKS])
def test_floor_keeps_what_follows_the_context(
    evict: EvictMode, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = Masks(monkeypatch)
    one = make_item(make_question(2))
    contract = replace(PROMPT, evict=evict)
    (record,) = records_of(run_item(make_setup(runtime, contract), one, [named("floor")]))
    tokens = len(prompt_of(one, one.questions[0]))
    after = tokens - len(one.context)
    assert after > PROMPT.protection.recents
    assert record.kept == ((2 + after) * KV_HEADS,) * LAYERS
    if evict is EvictMode.PREFILL:
        ((mask,),) = masks.of.values()
        due = [place < 2 or place >= tokens - after for place in range(tokens)]
        assert mask.tolist() == [[due] * KV_HEADS] * LAYERS


def test_the_last_token_is_kept_without_recents(runtime: Runtime, item: Item) -> None:
    bare = replace(PROMPT, protection=Protection(sinks=0, recents=0))
    assert bare.protected(3) == Protection(sinks=0, recents=1)
    tasks = [named(name, Fraction(1, 10)) for name in ("random", "knorm")]
    assert all(
        isinstance(each, Record) for each in run_item(make_setup(runtime, bare), item, tasks)
    )


def test_a_budget_without_room_for_it_is_refused(runtime: Runtime) -> None:
    with pytest.raises(UsageProblem, match="a budget of 2 entries a head cannot hold the 2 sinks"):
        PROMPT.protected(2)
    one = make_item(make_question(0))
    (failed,) = run_item(make_setup(runtime, PROMPT), one, [named("random", Fraction(1, 25))])
    assert isinstance(failed, Failure)
    assert "and the last token of the prompt; raise --retention" in failed.reason


def test_compact_positions_move_the_last_token_too(runtime: Runtime) -> None:
    """It is read at the place behind what is kept, as if nothing else had ever been there."""
    ids = tuple(range(2, 32))
    prefilled, _ = prefill(runtime, ids)
    mask = prefilled.all_kept()
    mask[..., 5:20] = False
    question = make_question(0, question=(), tail=ids[-1:])
    request = Request(
        context=prefilled, questions=(question,), layout=QuestionMode.PROMPT, generate=0
    )
    kinds = (Positions.ORIGINAL, Positions.COMPACT)
    original, compact = answer(runtime, request, [Kept(mask=mask, positions=k) for k in kinds])
    assert not torch.allclose(original.logprob[0], compact.logprob[0])
    everything = [Kept(mask=prefilled.all_kept(), positions=kind) for kind in kinds]
    one, other = answer(runtime, request, everything)
    torch.testing.assert_close(one.logprob[0], other.logprob[0], atol=1e-4, rtol=1e-4)


def test_what_is_seen_of_the_last_token_is_seen_once(runtime: Runtime) -> None:
    needs = frozenset({ColumnSums()})
    prefilled, _ = prefill(runtime, range(2, 22), needs)
    mask = prefilled.all_kept()
    mask[..., 3:9] = False
    cache = HeldCache(1, needs=needs, whole=prefilled)
    cache.hold(prefilled, [mask])
    before = [layer.observed[ColumnSums()] for layer in cache.layers]
    cache.take_back_last()
    assert (cache.entries, cache.tokens) == (13, 19)
    for again in (True, False):
        assert cache.expect(1).tolist() == [19 if again else 20]
        for number in (0, 1):
            query, key = torch.randn(1, 4, 1, 16), torch.randn(1, 2, 1, 16)
            call = AttentionCall(
                layer=number, query=query, key=key, value=key, scaling=0.25, window=None
            )
            cache.attend(call)
        for layer, sums in zip(cache.layers, before, strict=True):
            found = layer.observed[ColumnSums()]
            assert found.shape[-1] == layer.entries == 14 + (not again)
            assert torch.equal(found, sums) is again
