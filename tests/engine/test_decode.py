from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.contract import QuestionMode
from kvharness.engine import decode
from kvharness.engine.answer import Request, answer
from kvharness.engine.decode import Forced, Prompt, force, greedy, packs
from kvharness.items.item import Question
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import BatchCache, Kept
from kvharness.policy.view import Positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from tests.conftest import MakePair

TOKENS, ROOM, MANY = 30, 120, 10_000
NEVER: frozenset[int] = frozenset()


def draw_ids(count: int, seed: int) -> tuple[int, ...]:
    drawn = torch.randint(2, 1500, (count,), generator=torch.Generator().manual_seed(seed))
    return tuple(int(each) for each in drawn)


CONTEXT = draw_ids(TOKENS, seed=0)
#: Of several lengths, down to one token each.
PROMPTS = [
    Prompt(lead=draw_ids(lead, 10 + number), answer=draw_ids(answer, 20 + number))
    for number, (lead, answer) in enumerate([(4, 3), (1, 1), (7, 5), (2, 1), (1, 4), (3, 2)])
]
ALL = torch.ones(2, 2, TOKENS, dtype=torch.bool)


def random_mask(seed: int, *, kept: int | None = None) -> Tensor:
    """Head-wise ragged, or of equal counts; every head keeps something."""
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.rand(2, 2, TOKENS, generator=generator).argsort(dim=-1).argsort(dim=-1)
    if kept is not None:
        return ranks < kept
    return ranks < torch.randint(1, TOKENS, (2, 2, 1), generator=generator)


CELLS = [
    Kept(mask=random_mask(0)),
    Kept(mask=random_mask(1, kept=10)),
    Kept(mask=random_mask(2, kept=10)),
    Kept(mask=random_mask(3, kept=10), positions=Positions.COMPACT),
    Kept(mask=random_mask(4)),
    Kept(mask=ALL),
    Kept(mask=random_mask(5, kept=3)),
]


@pytest.fixture(scope="module")
def context(runtime: Runtime) -> Prefilled:
    return prefill(runtime, CONTEXT)[0]


def make_cache(runtime: Runtime, context: Prefilled, cells: Sequence[Kept]) -> BatchCache:
    return BatchCache(context, cells, room=ROOM, rotation=runtime.rotation)


def plain_logprobs(plain: PreTrainedModel, context: Sequence[int], prompt: Prompt) -> Tensor:
    """Log-probabilities ``[answer, vocabulary]`` of transformers on the whole sequence."""
    with torch.inference_mode():
        logits = plain(torch.tensor([[*context, *prompt.tokens]]), use_cache=False).logits
    rows: Tensor = logits[0, len(context) + len(prompt.lead) - 1 :]
    return rows.log_softmax(dim=-1)


def check_against_plain(
    plain: PreTrainedModel, context: Sequence[int], prompts: Sequence[Prompt], forced: Forced
) -> None:
    (logprobs,), (choices,) = forced.logprob, forced.greedy
    for prompt, logprob, choice in zip(prompts, logprobs, choices, strict=True):
        expected = plain_logprobs(plain, context, prompt)
        due = expected.gather(1, torch.tensor(prompt.answer)[:, None])[:, 0]
        torch.testing.assert_close(logprob, due, rtol=1e-4, atol=1e-3)
        assert torch.equal(choice, expected.argmax(dim=-1))


def check_same(one: Forced, two: Forced) -> None:
    """Rounding may differ between batches, a greedy choice may not."""
    for ours, theirs in zip(one.logprob, two.logprob, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    for mine, yours in zip(one.greedy, two.greedy, strict=True):
        assert [row.tolist() for row in mine] == [row.tolist() for row in yours]


def joined(parts: Sequence[Forced]) -> Forced:
    """Cells that were run apart, as if together."""
    return Forced(
        greedy=[cell for part in parts for cell in part.greedy],
        logprob=[cell for part in parts for cell in part.logprob],
    )


def test_a_prompt_reads_all_but_the_last_token_of_the_answer() -> None:
    question = Question(
        text="",
        question=(1, 2),
        tail=(3,),
        answer=(4, 5),
        slots=((0, 2),),
        reference="",
        references=("",),
    )
    assert Prompt.of(question, QuestionMode.UNSEEN) == Prompt(lead=(1, 2, 3), answer=(4, 5))
    assert Prompt.of(question, QuestionMode.SEEN) == Prompt(lead=(3,), answer=(4, 5))
    assert Prompt.of(question, QuestionMode.SEEN).tokens == (3, 4)


@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=12))
def test_packs_keep_the_order_and_the_limit(lengths: list[int]) -> None:
    prompts = [Prompt(lead=(number,) * n, answer=(0,)) for number, n in enumerate(lengths)]
    parts = packs(prompts)
    assert [prompt for part in parts for prompt in part] == prompts
    for part in parts:
        assert part
        assert len(part) == 1 or sum(len(prompt.tokens) for prompt in part) <= 128
    for before, after in pairwise(parts):
        assert sum(len(prompt.tokens) for prompt in [*before, after[0]]) > 128


@pytest.mark.parametrize("pack", [1, 9, 128])
def test_the_full_cache_gives_teacher_forced_logits_of_transformers(
    pack: int,
    runtime: Runtime,
    plain_model: PreTrainedModel,
    context: Prefilled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode, "_PACK_TOKENS", pack)
    cache = make_cache(runtime, context, [Kept(mask=ALL)])
    forced = force(runtime.model, cache, PROMPTS, most_tokens=MANY)
    check_against_plain(plain_model, CONTEXT, PROMPTS, forced)


@pytest.mark.parametrize("tokens", [1, 5, 25])
def test_sliding_layers_give_teacher_forced_logits_of_transformers(
    tokens: int, make_pair: MakePair
) -> None:
    plain, runtime = make_gemma(make_pair)
    ids = CONTEXT[:tokens]
    context, _ = prefill(runtime, ids)
    kept = Kept(mask=torch.ones(1, 1, tokens, dtype=torch.bool))
    cache = BatchCache(context, [kept], room=ROOM)
    forced = force(runtime.model, cache, PROMPTS, most_tokens=MANY)
    check_against_plain(plain, ids, PROMPTS, forced)


def make_gemma(make_pair: MakePair) -> tuple[PreTrainedModel, Runtime]:
    from transformers import Gemma3TextConfig

    values: dict[str, Any] = {
        "vocab_size": 1502,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "initializer_range": 0.4,
        "sliding_window": 9,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }
    return make_pair(Gemma3TextConfig(**values))


def test_a_cell_does_not_depend_on_its_neighbours(runtime: Runtime, context: Prefilled) -> None:
    alone = joined(
        [
            force(runtime.model, make_cache(runtime, context, [cell]), PROMPTS, most_tokens=MANY)
            for cell in CELLS
        ]
    )
    together = force(runtime.model, make_cache(runtime, context, CELLS), PROMPTS, most_tokens=MANY)
    check_same(alone, together)
    order = [5, 2, 0, 6, 4, 1, 3]
    turned = make_cache(runtime, context, [CELLS[i] for i in order])
    shuffled = force(runtime.model, turned, PROMPTS, most_tokens=MANY)
    back = [order.index(i) for i in range(len(CELLS))]
    check_same(
        together,
        Forced(
            greedy=[shuffled.greedy[i] for i in back], logprob=[shuffled.logprob[i] for i in back]
        ),
    )


@pytest.mark.parametrize("most_tokens", [1, 60, 100])
def test_passes_of_fewer_tokens_change_nothing(
    most_tokens: int, runtime: Runtime, context: Prefilled
) -> None:
    whole = make_cache(runtime, context, CELLS)
    parted = make_cache(runtime, context, CELLS)
    expected = force(runtime.model, whole, PROMPTS, most_tokens=MANY)
    check_same(expected, force(runtime.model, parted, PROMPTS, most_tokens=most_tokens))
    assert parted.active == slice(0, len(CELLS))


@pytest.mark.parametrize("pack", [1, 8, 16])
def test_packing_changes_nothing(
    pack: int, runtime: Runtime, context: Prefilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = force(runtime.model, make_cache(runtime, context, CELLS), PROMPTS, most_tokens=MANY)
    monkeypatch.setattr(decode, "_PACK_TOKENS", pack)
    cache = make_cache(runtime, context, CELLS)
    check_same(expected, force(runtime.model, cache, PROMPTS, most_tokens=MANY))


def test_questions_do_not_see_each_other(runtime: Runtime, context: Prefilled) -> None:
    cache = make_cache(runtime, context, CELLS)
    together = force(runtime.model, cache, PROMPTS, most_tokens=MANY)
    for index, prompt in enumerate(PROMPTS):
        # The same cache again: nothing of what was asked before is left.
        alone = force(runtime.model, cache, [prompt], most_tokens=MANY)
        check_same(
            alone,
            Forced(
                greedy=[[cell[index]] for cell in together.greedy],
                logprob=[[cell[index]] for cell in together.logprob],
            ),
        )


def generated_by_transformers(
    plain: PreTrainedModel, ids: Sequence[int], count: int, stop: int | None
) -> list[int]:
    given = torch.tensor([list(ids)])
    with torch.inference_mode():
        whole: Any = plain.generate(  # type: ignore[operator]
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=count,
            eos_token_id=stop,
            pad_token_id=0,
        )
    return [int(token) for token in whole[0, len(ids) :]]


def continuations(
    runtime: Runtime,
    context: Prefilled,
    cells: Sequence[Kept],
    prompts: Sequence[Prompt],
    *,
    count: int,
    stop: frozenset[int] = NEVER,
) -> list[list[int]]:
    """Of the first prompt, whatever else was forced beside it."""
    cache = make_cache(runtime, context, cells)
    forced = force(runtime.model, cache, prompts, most_tokens=MANY)
    first = [int(cell[0][0]) for cell in forced.greedy]
    return greedy(runtime.model, cache, first, max_new_tokens=count, stop=stop)


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[1:], PROMPTS[2:3]])
@pytest.mark.parametrize("pack", [8, 128])
def test_greedy_decoding_is_that_of_transformers(
    prompts: list[Prompt],
    pack: int,
    runtime: Runtime,
    plain_model: PreTrainedModel,
    context: Prefilled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode, "_PACK_TOKENS", pack)
    ids = [*CONTEXT, *prompts[0].lead]
    expected = generated_by_transformers(plain_model, ids, 12, None)
    assert len(set(expected)) > 3
    cells = [*CELLS, Kept(mask=ALL, positions=Positions.COMPACT)]
    rows = continuations(runtime, context, cells, prompts, count=12)
    assert rows[5] == rows[7] == expected
    assert all(len(row) == 12 for row in rows)


def test_greedy_decoding_over_sliding_layers_is_that_of_transformers(
    make_pair: MakePair,
) -> None:
    plain, runtime = make_gemma(make_pair)
    context, _ = prefill(runtime, CONTEXT)
    prompt = PROMPTS[0]
    cache = BatchCache(context, [Kept(mask=torch.ones(1, 1, TOKENS, dtype=torch.bool))], room=ROOM)
    forced = force(runtime.model, cache, PROMPTS, most_tokens=MANY)
    first = int(forced.greedy[0][0][0])
    # Longer than the window, so that the first reply tokens leave it.
    rows = greedy(runtime.model, cache, [first], max_new_tokens=14, stop=NEVER)
    expected = generated_by_transformers(plain, [*CONTEXT, *prompt.lead], 14, None)
    assert rows == [expected]


def test_greedy_decoding_does_not_depend_on_neighbours(
    runtime: Runtime, context: Prefilled
) -> None:
    together = continuations(runtime, context, CELLS, PROMPTS, count=8)
    for cell, row in zip(CELLS, together, strict=True):
        assert continuations(runtime, context, [cell], PROMPTS, count=8) == [row]


def test_greedy_decoding_agrees_with_forcing_what_was_decoded(
    runtime: Runtime, context: Prefilled
) -> None:
    rows = continuations(runtime, context, CELLS, PROMPTS, count=8)
    for cell, row in zip(CELLS, rows, strict=True):
        prompt = Prompt(lead=PROMPTS[0].lead, answer=tuple(row))
        cache = make_cache(runtime, context, [cell])
        forced = force(runtime.model, cache, [prompt], most_tokens=MANY)
        assert forced.greedy[0][0].tolist() == row


def test_a_stop_token_ends_a_row_and_is_not_part_of_it(
    runtime: Runtime, plain_model: PreTrainedModel, context: Prefilled
) -> None:
    free = continuations(runtime, context, CELLS, PROMPTS, count=10)
    full = free[5]
    stop = next(token for token in full[3:] if token not in full[:3])
    rows = continuations(runtime, context, CELLS, PROMPTS, count=10, stop=frozenset({stop, 1500}))
    for row, whole in zip(rows, free, strict=True):
        assert row == (whole[: whole.index(stop)] if stop in whole else whole)
    expected = generated_by_transformers(plain_model, [*CONTEXT, *PROMPTS[0].lead], 10, stop)
    assert [*rows[5], stop] == expected
    # At once, and in all rows: nothing is left to say.
    first = frozenset(row[0] for row in free)
    assert continuations(runtime, context, CELLS, PROMPTS, count=10, stop=first) == [
        [] for _ in CELLS
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_short_replies(count: int, runtime: Runtime, context: Prefilled) -> None:
    long = continuations(runtime, context, CELLS, PROMPTS, count=5)
    short = continuations(runtime, context, CELLS, PROMPTS, count=count)
    assert short == [row[:count] for row in long]


def make_question(number: int, max_new_tokens: int) -> Question:
    prompt = PROMPTS[number]
    return Question(
        text="",
        question=prompt.lead,
        tail=draw_ids(2, 40 + number),
        answer=prompt.answer,
        slots=((0, len(prompt.answer)),),
        reference="",
        references=("",),
        max_new_tokens=max_new_tokens,
    )


def test_generating_for_all_questions_equals_asking_each_alone(
    runtime: Runtime, context: Prefilled
) -> None:
    questions = tuple(make_question(number, 6 - number) for number in range(4))

    def ask(chosen: tuple[Question, ...], generate: int) -> list[list[list[int] | None]]:
        request = Request(
            context=context, questions=chosen, layout=QuestionMode.UNSEEN, generate=generate
        )
        return [each.generated for each in answer(runtime, request, CELLS)]

    together = ask(questions, len(questions))
    for index, question in enumerate(questions):
        alone = ask((question,), 1)
        assert [cell[index] for cell in together] == [cell[0] for cell in alone]
        for reply in alone:
            assert reply[0] is not None
            assert len(reply[0]) <= question.max_new_tokens
    first = ask(questions, 1)
    assert [cell[0] for cell in first] == [cell[0] for cell in together]
    assert all(cell[1:] == [None] * 3 for cell in first)
    assert ask(questions, 0) == [[None] * 4 for _ in CELLS]
