from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness.contract import QuestionMode
from kvharness.engine import answer as answer_module
from kvharness.engine.answer import Answers, Request, answer, answer_each, score_in_full
from kvharness.engine.decode import force
from kvharness.errors import ModelProblem
from kvharness.items.item import Question
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import Kept
from kvharness.model.loaded import Runtime
from kvharness.policy.view import Positions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from kvharness.engine.decode import Forced
    from kvharness.model.evicted_cache import BatchCache
    from kvharness.model.prefilled import Prefilled

TOKENS = 24
#: Keys and values of one entry in bytes: head size 16, float32.
ENTRY = 2 * 16 * 4
ROWS = 4


def draw_ids(count: int, seed: int) -> tuple[int, ...]:
    drawn = torch.randint(2, 1500, (count,), generator=torch.Generator().manual_seed(seed))
    return tuple(int(each) for each in drawn)


CONTEXT = draw_ids(TOKENS, seed=0)


def make_question(number: int, *, max_new_tokens: int = 5) -> Question:
    return Question(
        text="",
        question=draw_ids(3 + number, 10 + number),
        tail=draw_ids(2, 20 + number),
        answer=draw_ids(3, 30 + number),
        slots=((0, 3),),
        reference="",
        references=("",),
        max_new_tokens=max_new_tokens,
    )


QUESTIONS = tuple(make_question(number) for number in range(3))


def random_mask(seed: int, *, kept: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.rand(2, 2, TOKENS, generator=generator).argsort(dim=-1).argsort(dim=-1)
    if kept is not None:
        return ranks < kept
    return ranks < torch.randint(1, TOKENS, (2, 2, 1), generator=generator)


#: Neither sorted by size nor by kind.
CELLS = [
    Kept(mask=random_mask(0, kept=20)),
    Kept(mask=random_mask(1)),
    Kept(mask=random_mask(2, kept=4)),
    Kept(mask=torch.ones(2, 2, TOKENS, dtype=torch.bool)),
    Kept(mask=random_mask(3, kept=4), positions=Positions.COMPACT),
    Kept(mask=random_mask(4, kept=4)),
    Kept(mask=random_mask(5)),
]


@pytest.fixture(scope="module")
def context(runtime: Runtime) -> Prefilled:
    return prefill(runtime, CONTEXT)[0]


@pytest.fixture(scope="module")
def request_all(context: Prefilled) -> Request:
    return Request(context=context, questions=QUESTIONS, layout=QuestionMode.UNSEEN, generate=2)


@pytest.fixture(scope="module")
def expected(runtime: Runtime, request_all: Request) -> list[Answers]:
    """Each cell alone."""
    return [answer(runtime, request_all, [cell])[0] for cell in CELLS]


def check_same(got: Sequence[Answers], due: Sequence[Answers]) -> None:
    for one, two in zip(got, due, strict=True):
        assert [row.tolist() for row in one.greedy] == [row.tolist() for row in two.greedy]
        for ours, theirs in zip(one.logprob, two.logprob, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
        assert one.generated == two.generated
        assert one.cache_bytes == two.cache_bytes


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def on_a_cpu() -> None:
    """A plain RuntimeError, as this torch raises it."""
    torch.empty(2**62, dtype=torch.uint8)


def spy(
    monkeypatch: pytest.MonkeyPatch, *, most: int = 99, lack: Callable[[], None] = on_a_gpu
) -> list[int]:
    """Note the sizes of batches; batches of more than ``most`` cells run out of memory."""
    sizes: list[int] = []
    usual = answer_module._answer_batch

    def noted(runtime: Runtime, request: Request, cells: Sequence[Kept]) -> list[Answers]:
        sizes.append(len(cells))
        if len(cells) > most:
            lack()
        return usual(runtime, request, cells)

    monkeypatch.setattr(answer_module, "_answer_batch", noted)
    return sizes


def test_answers_come_in_the_order_given(
    runtime: Runtime,
    request_all: Request,
    expected: list[Answers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = spy(monkeypatch)
    check_same(answer(runtime, request_all, CELLS), expected)
    assert sizes == [len(CELLS)]
    check_same(answer(runtime, request_all, CELLS[::-1]), expected[::-1])


def test_every_cell_reports_its_own_bytes_and_some_time(
    runtime: Runtime, request_all: Request
) -> None:
    answers = answer(runtime, request_all, CELLS)
    assert [each.cache_bytes for each in answers] == [cell.total * ENTRY for cell in CELLS]
    assert all(each.seconds > 0 for each in answers)


def test_no_cells_no_answers(runtime: Runtime, request_all: Request) -> None:
    assert answer(runtime, request_all, []) == []


@pytest.mark.parametrize(
    ("most", "lack"), [(1, on_a_gpu), (2, on_a_gpu), (3, on_a_gpu), (2, on_a_cpu)]
)
def test_a_batch_that_does_not_fit_is_halved(
    most: int,
    lack: Callable[[], None],
    runtime: Runtime,
    request_all: Request,
    expected: list[Answers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = spy(monkeypatch, most=most, lack=lack)
    check_same(answer(runtime, request_all, CELLS), expected)
    assert sizes[0] == len(CELLS)
    assert sum(size for size in sizes if size <= most) == len(CELLS)


def test_running_out_of_memory_midway_is_no_different(
    runtime: Runtime,
    request_all: Request,
    expected: list[Answers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = force
    passes: list[int] = []

    def failing(model: Any, cache: BatchCache, prompts: Any, *, most_tokens: int) -> Forced:
        passes.append(len(cache.cells))
        forced = usual(model, cache, prompts, most_tokens=most_tokens)
        # The second time, when the cache is there and something has been computed.
        if len(cache.cells) > 2 and len(passes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forced

    monkeypatch.setattr(answer_module, "force", failing)
    check_same(answer(runtime, request_all, CELLS), expected)
    assert passes[0] == passes[1] == len(CELLS)


def test_a_single_cell_that_does_not_fit_says_what_to_change(
    runtime: Runtime, request_all: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy(monkeypatch, most=0, lack=on_a_cpu)
    message = (
        "cpu ran out of memory decoding a single cell; lower --kv-context, run fewer workers (-n) "
        "or choose a smaller --kv-model"
    )
    with pytest.raises(ModelProblem, match=f"^{re.escape(message)}$"):
        answer(runtime, request_all, CELLS)


def test_a_cell_that_does_not_fit_leaves_the_others_their_answers(
    runtime: Runtime,
    request_all: Request,
    expected: list[Answers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = answer_module._answer_batch

    def failing(runtime: Runtime, request: Request, cells: Sequence[Kept]) -> list[Answers]:
        if any(cell is CELLS[3] for cell in cells):
            on_a_cpu()
        return usual(runtime, request, cells)

    monkeypatch.setattr(answer_module, "_answer_batch", failing)
    answers = answer_each(runtime, request_all, CELLS)
    assert isinstance(answers[3], ModelProblem)
    fine = [each for each in answers if not isinstance(each, ModelProblem)]
    check_same(fine, [*expected[:3], *expected[4:]])


def test_a_reference_that_does_not_fit_says_what_to_change(
    runtime: Runtime, request_all: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> Forced:
        raise torch.OutOfMemoryError("CUDA out of memory")

    # The full cache is read first and alone, so this is where memory ends in practice.
    monkeypatch.setattr(answer_module, "force", failing)
    with pytest.raises(ModelProblem, match="ran out of memory"):
        score_in_full(runtime, request_all, CELLS[3], observe=False)


def test_other_errors_are_not_taken_for_lack_of_memory(
    runtime: Runtime, request_all: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def broken(*_: object, **__: object) -> Forced:
        calls.append(1)
        raise RuntimeError("mat1 and mat2")

    monkeypatch.setattr(answer_module, "force", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        answer(runtime, request_all, CELLS)
    assert len(calls) == 1


@pytest.mark.parametrize("cells_worth", [0.0, 1.0, 2.5, 4.0])
def test_memory_divides_cells_into_batches(
    cells_worth: float,
    runtime: Runtime,
    request_all: Request,
    expected: list[Answers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``cells_worth`` is how many full caches fit."""
    limit = int(cells_worth * ROWS * (TOKENS + request_all.room) * ENTRY)
    batches: list[list[Kept]] = []
    usual = answer_module._answer_batch

    def noted(runtime: Runtime, request: Request, cells: Sequence[Kept]) -> list[Answers]:
        batches.append(list(cells))
        return usual(runtime, request, cells)

    monkeypatch.setattr(answer_module, "_answer_batch", noted)
    monkeypatch.setattr(Runtime, "memory", lambda _: limit)
    check_same(answer(runtime, request_all, CELLS), expected)
    assert len(batches) > 1
    assert sorted(map(id, CELLS)) == sorted(id(cell) for cells in batches for cell in cells)
    for cells in batches:
        size = sum((cell.total + ROWS * request_all.room) * ENTRY for cell in cells)
        assert len(cells) == 1 or size <= limit


def test_the_reference_is_read_alone_and_generates_nothing(
    runtime: Runtime, request_all: Request, expected: list[Answers]
) -> None:
    answers, future = score_in_full(runtime, request_all, CELLS[3], observe=False)
    assert future == {}
    assert answers.generated == [None] * 3
    check_same([answers], [replace(expected[3], generated=[None] * 3)])


def test_the_future_is_the_same_whatever_is_generated(
    runtime: Runtime, request_all: Request
) -> None:
    futures = []
    for generate in (0, 1, 3):
        asked = replace(request_all, generate=generate)
        _, future = score_in_full(runtime, asked, CELLS[3], observe=True)
        assert [each.shape for each in future.values()] == [(4, TOKENS)] * 2
        futures.append(torch.stack(list(future.values())))
    assert torch.equal(futures[0], futures[1])
    assert torch.equal(futures[0], futures[2])


def test_a_seen_question_is_read_from_the_cache(runtime: Runtime, request_all: Request) -> None:
    (unseen,) = answer(runtime, request_all, CELLS[3:4])
    for index, question in enumerate(QUESTIONS):
        longer, _ = prefill(runtime, (*CONTEXT, *question.question))
        asked = Request(context=longer, questions=(question,), layout=QuestionMode.SEEN, generate=1)
        everything = Kept(mask=torch.ones(2, 2, longer.tokens, dtype=torch.bool))
        (seen,) = answer(runtime, asked, [everything])
        torch.testing.assert_close(seen.logprob[0], unseen.logprob[index], rtol=1e-4, atol=1e-3)
        assert torch.equal(seen.greedy[0], unseen.greedy[index])
        if index < 2:
            assert seen.generated[0] == unseen.generated[index]


@pytest.mark.parametrize(
    ("lengths", "generate", "room"),
    [
        # The packed prompts: leads of 5, 6 and 7 tokens, each with 2 answer tokens.
        ([1, 1, 1], 3, 24),
        ([20, 1, 1], 0, 24),
        # The longest reply behind its lead, of those that are generated.
        ([20, 1, 1], 1, 25),
        ([1, 1, 20], 2, 24),
        ([1, 1, 20], 3, 27),
    ],
)
def test_room_is_for_the_packed_prompts_or_the_longest_reply(
    lengths: list[int], generate: int, room: int, runtime: Runtime, context: Prefilled
) -> None:
    questions = tuple(
        make_question(number, max_new_tokens=length) for number, length in enumerate(lengths)
    )
    asked = Request(
        context=context, questions=questions, layout=QuestionMode.UNSEEN, generate=generate
    )
    assert asked.room == room
    (answers,) = answer(runtime, asked, CELLS[:1])
    replies = [None if reply is None else len(reply) for reply in answers.generated]
    assert all(reply is not None for reply in replies[:generate])
    assert all(reply is None for reply in replies[generate:])


def test_a_cell_may_keep_nothing(runtime: Runtime, request_all: Request) -> None:
    (answers,) = answer(runtime, request_all, [Kept(mask=torch.zeros_like(CELLS[0].mask))])
    assert answers.cache_bytes == 0
