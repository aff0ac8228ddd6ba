from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import Policy, Positions, Protection, Queries
from kvharness.cell import Cell
from kvharness.contract import Contract, QuestionMode
from kvharness.discovery.loaded import LoadedPolicy
from kvharness.discovery.registry import installed, load
from kvharness.discovery.spec import PolicySpec
from kvharness.engine import item_run, selector
from kvharness.engine.answer import Request, answer, score_in_full
from kvharness.engine.item_run import run_item
from kvharness.engine.select import mask_digest, select_entries
from kvharness.engine.task import Failure, Generate, Setup, Task
from kvharness.errors import ModelProblem, UsageProblem
from kvharness.items.item import Item, Question
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import Kept
from kvharness.records.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness import Choice, Trace, View
    from kvharness.engine.answer import Answers
    from kvharness.model.loaded import Runtime
    from tests.conftest import MakePair

TOKENS, LAYERS, HEADS, KV_HEADS = 40, 2, 4, 2
ENTRY = 2 * 16 * 4
PROTECTION = Protection(sinks=2, recents=4)
CONTRACT = Contract(context=TOKENS, protection=PROTECTION)
SEEN = replace(CONTRACT, question=QuestionMode.SEEN)
FIXED = ("full", "floor")
QUARTER, HALF = Fraction(1, 4), Fraction(1, 2)


def draw_ids(count: int, seed: int) -> tuple[int, ...]:
    drawn = torch.randint(2, 1500, (count,), generator=torch.Generator().manual_seed(seed))
    return tuple(int(each) for each in drawn)


def make_question(number: int, **changes: Any) -> Question:
    ids = draw_ids(4, 30 + number)
    values: dict[str, Any] = {
        "text": f"question {number}",
        "question": draw_ids(3 + number, 10 + number),
        "tail": draw_ids(2, 20 + number),
        "answer": ids,
        "slots": ((0, 1), (2, 4)),
        "reference": "a b",
        "references": ("a b",),
        "evidence": ((5 + 9 * number, 11 + 9 * number),),
        "max_new_tokens": 6,
    }
    return Question(**{**values, **changes})


def make_item(*questions: Question, tokens: int = TOKENS, seed: int = 0) -> Item:
    return Item(
        suite="qa",
        name=f"qa-s{seed}-00",
        variant="facts",
        seed=seed,
        context=draw_ids(tokens, seed=seed),
        text="",
        questions=questions or (make_question(0), make_question(1), make_question(2)),
    )


@pytest.fixture(scope="module")
def item() -> Item:
    return make_item()


def make_task(policy: LoadedPolicy, retention: Fraction | None, seed: int = 0) -> Task:
    column = None if policy.slug in FIXED else retention
    cell = Cell(suite="qa", policy=policy.slug, retention=column, seed=seed)
    return Task(cell=cell, policy=policy, key=f"key of {cell.name}")


def named(name: str, retention: Fraction | None = QUARTER, seed: int = 0) -> Task:
    return make_task(load(PolicySpec(name=name), installed()), retention, seed)


def scripted(policy: Policy, name: str = "mine", retention: Fraction = QUARTER) -> Task:
    loaded = LoadedPolicy(
        spec=PolicySpec(name=name),
        policy=policy,
        distribution="some-package",
        version="0",
        digest=lambda: "0",
        parameters="{}",
    )
    return make_task(loaded, retention)


def names() -> list[str]:
    """Of all policies that need neither another policy nor to get ready for this model.

    tests/engine/test_architectures.py runs the others.
    """
    known = installed()
    alone = [name for name, found in known.items() if not found.wraps]
    return [n for n in alone if not learns(load(PolicySpec(name=n), known).policy)]


def learns(policy: Policy) -> bool:
    return type(policy).ready is not Policy.ready


def all_tasks() -> list[Task]:
    tasks = [named(name, retention) for name in names() for retention in (QUARTER, HALF)]
    return list({task.key: task for task in tasks}.values())


def make_setup(
    runtime: Runtime, contract: Contract = CONTRACT, generate: Generate = Generate.NONE
) -> Setup:
    return Setup(runtime=runtime, contract=contract, generate=generate, score_name="exact")


def records_of(results: Iterator[Record | Failure]) -> list[Record]:
    found = list(results)
    failures = [result.reason for result in found if isinstance(result, Failure)]
    assert not failures
    return [result for result in found if isinstance(result, Record)]


class Masks:
    """Every keep mask that the engine makes, by policy and then pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: dict[str, list[Tensor]] = {}
        monkeypatch.setattr(selector, "select_entries", self.note)

    def note(
        self,
        policy: Policy,
        trace: Trace,
        scores: Tensor,
        budget: int,
        protection: Protection,
        *,
        name: str,
    ) -> Tensor:
        mask = select_entries(policy, trace, scores, budget, protection, name=name)
        self.of.setdefault(f"{name} {budget}", []).append(mask)
        return mask


def naive_share(mask: Tensor, spans: Sequence[tuple[int, int]]) -> float:
    tokens = {j for start, end in spans for j in range(start, end)}
    rows = [row for layer in mask.tolist() for row in layer]
    kept = [bool(row[j]) for row in rows for j in tokens]
    return sum(kept) / len(kept)


def test_every_installed_policy_keeps_exactly_its_budget(
    runtime: Runtime, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = Masks(monkeypatch)
    tasks = all_tasks()
    records = records_of(run_item(make_setup(runtime), item, tasks))
    assert [record.key for record in records] == [task.key for task in tasks]
    assert len(tasks) == 2 + 2 * (len(names()) - 2)
    for task, record in zip(tasks, records, strict=True):
        budgets = {"full": TOKENS, "floor": PROTECTION.total}
        due = {QUARTER: 10, HALF: 20}
        cell = task.cell
        budget = budgets[cell.policy] if cell.retention is None else due[cell.retention]
        assert sum(record.kept) == budget * KV_HEADS * LAYERS
        if not task.policy.policy.capabilities.head_wise:
            assert record.kept == (budget * KV_HEADS,) * LAYERS
        assert record.realised_retention == budget / TOKENS
        assert record.cache_bytes == budget * KV_HEADS * LAYERS * ENTRY
        assert record.tokens == TOKENS
        assert record.retention == cell.retention_text
        assert (record.suite, record.policy, record.seed) == ("qa", cell.policy, 0)
        assert (record.item, record.item_digest) == (item.name, item.digest)
        assert record.seconds.prefill > 0
        assert record.seconds.decode > 0
        if cell.policy != "full":
            (mask,) = masks.of[f"{cell.policy} {budget}"]
            assert mask.sum(dim=(1, 2)).tolist() == list(record.kept)
            if not task.policy.policy.capabilities.head_wise:
                assert mask.sum(dim=-1).tolist() == [[budget] * KV_HEADS] * LAYERS
            assert mask[..., : PROTECTION.sinks].all()
            assert mask[..., -PROTECTION.recents :].all()
            assert record.mask_digest == (mask_digest(mask),)
            assert record.evidence_kept == pytest.approx(naive_share(mask, item.evidence))
            for question, answered in zip(item.questions, record.questions, strict=True):
                assert answered.evidence_kept == pytest.approx(naive_share(mask, question.evidence))
    scores = [record.score for record in records]
    assert scores == [record.metrics["exact"] for record in records]


def test_full_keeps_everything_and_agrees_with_itself(runtime: Runtime, item: Item) -> None:
    (record,) = records_of(run_item(make_setup(runtime), item, [named("full")]))
    everything = torch.ones(LAYERS, KV_HEADS, TOKENS, dtype=torch.bool)
    assert record.mask_digest == (mask_digest(everything),)
    assert record.realised_retention == record.evidence_kept == 1
    assert [question.agreement for question in record.questions] == [1] * 3


def test_floor_keeps_the_protected_and_nothing_else(
    runtime: Runtime, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = Masks(monkeypatch)
    records_of(run_item(make_setup(runtime), item, [named("floor")]))
    ((mask,),) = masks.of.values()
    expected = [j < 2 or j >= TOKENS - 4 for j in range(TOKENS)]
    assert mask.tolist() == [[expected] * KV_HEADS] * LAYERS


@pytest.mark.parametrize("tokens", [3, 5, 6, 8])
def test_floor_of_a_short_context(tokens: int, runtime: Runtime) -> None:
    short = make_item(make_question(0, evidence=((0, 1),)), tokens=tokens)
    (record,) = records_of(run_item(make_setup(runtime), short, [named("floor")]))
    assert record.realised_retention == min(tokens, 6) / tokens


def test_without_protection_floor_keeps_nothing(runtime: Runtime, item: Item) -> None:
    bare = replace(CONTRACT, protection=Protection(sinks=0, recents=0))
    full, floor = records_of(
        run_item(make_setup(runtime, bare), item, [named("full"), named("floor")])
    )
    assert floor.realised_retention == floor.evidence_kept == 0
    assert full.realised_retention == 1


def test_what_is_kept_depends_on_neither_neighbours_nor_replies(
    runtime: Runtime, item: Item
) -> None:
    tasks = [named(name) for name in names()]
    setup = make_setup(runtime)
    together = {r.key: r.mask_digest for r in records_of(run_item(setup, item, tasks))}
    for generate in Generate:
        setup = make_setup(runtime, generate=generate)
        again = records_of(run_item(setup, item, tasks[::-1]))
        assert {r.key: r.mask_digest for r in again} == together
    setup = make_setup(runtime)
    for task in tasks:
        (alone,) = records_of(run_item(setup, item, [task]))
        assert alone.mask_digest == together[task.key]


def test_answers_depend_on_neither_neighbours_nor_replies(runtime: Runtime, item: Item) -> None:
    tasks = [named(name) for name in ("full", "snapkv", "streaming-llm", "random")]
    setup = make_setup(runtime, generate=Generate.ALL)
    together = records_of(run_item(setup, item, tasks))
    for task, record in zip(tasks, together, strict=True):
        (alone,) = records_of(run_item(setup, item, [task]))
        for one, two in zip(alone.questions, record.questions, strict=True):
            assert one.generated == two.generated
            assert (one.exact, one.slot_accuracy) == (two.exact, two.slot_accuracy)
            assert one.nll == pytest.approx(two.nll, rel=1e-4)
    for generate, replies in ((Generate.FIRST, 1), (Generate.NONE, 0)):
        some = records_of(run_item(make_setup(runtime, generate=generate), item, tasks))
        for one_record, two_record in zip(some, together, strict=True):
            texts = [question.generated for question in one_record.questions]
            due = [question.generated for question in two_record.questions]
            assert texts == due[:replies] + [None] * (3 - replies)


def test_the_full_cache_answers_as_if_alone(
    runtime: Runtime, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tasks: list[Task]) -> Record:
        records = records_of(run_item(make_setup(runtime), item, tasks))
        return next(record for record in records if record.policy == "full")

    alone = full([named("full")])
    # Bit for bit: it is what all others are compared with.
    assert full(all_tasks()).questions == alone.questions

    def rounded(runtime: Runtime, request: Request, cells: Sequence[Kept]) -> list[Answers]:
        return [
            replace(
                each,
                logprob=[row - 0.125 for row in each.logprob],
                greedy=[row + 1 for row in each.greedy],
            )
            for each in answer(runtime, request, cells)
        ]

    monkeypatch.setattr(item_run, "answer_each", rounded)
    assert full(all_tasks()).questions == alone.questions


def test_draws_depend_on_the_seed_and_the_item(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = Masks(monkeypatch)
    digests = set()
    for seed in (0, 1):
        for number in (0, 1):
            item = make_item(make_question(number), seed=seed)
            tasks = [named("random", QUARTER, seed), named("random", HALF, seed)]
            records = records_of(run_item(make_setup(runtime), item, tasks))
            digests.add(records[0].mask_digest)
    assert len(digests) == 4
    # A smaller budget keeps a part of what a larger one keeps.
    for small, large in zip(masks.of["random 10"], masks.of["random 20"], strict=True):
        assert not (small & ~large).any()


@dataclass(frozen=True)
class Broken(Policy):
    how: str = ""

    def score(self, view: View) -> Tensor:
        score = torch.rand(view.kv_heads, view.tokens, generator=view.rng)
        if view.layer == 0:
            return score
        if self.how == "exits":
            sys.exit(0)
        if self.how == "raises":
            raise ZeroDivisionError("division by zero\nand a second line")
        if self.how == "usage":
            raise UsageProblem("it cannot be done")
        if self.how == "shape":
            return score[:, 1:]
        if self.how == "nan":
            score[1, 3] = float("nan")
        return score

    def allocate(self, choice: Choice) -> Tensor:
        budgets = super().allocate(choice)
        if self.how in {"uneven", "too much"}:
            budgets[0, 0] += 1
        if self.how == "uneven":
            budgets[1, 1] -= 1
        return budgets

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        mask = super().select(choice, budgets)
        return mask.flip(-1) if self.how == "mirrored" else mask


@dataclass(frozen=True)
class BrokenCompact(Broken):
    positions = Positions.COMPACT


BROKEN = [
    (Broken("raises"), "policy 'mine': ZeroDivisionError: division by zero"),
    (Broken("exits"), "policy 'mine': SystemExit: 0"),
    (Broken("usage"), "policy 'mine': it cannot be done"),
    (
        Broken("shape"),
        "policy 'mine' (layer 1): score returned shape (2, 39), expected (2, 40)",
    ),
    (
        Broken("nan"),
        "policy 'mine' (layer 1): score has 1 NaN or infinite entries, expected finite numbers",
    ),
    (Broken("too much"), "policy 'mine': budgets add up to 41, expected 10 x 2 x 2 = 40"),
    (
        BrokenCompact("uneven"),
        "policy 'mine': compact positions need equal budgets in all heads and layers",
    ),
]


@pytest.mark.parametrize(("policy", "reason"), BROKEN)
@pytest.mark.parametrize("contract", [CONTRACT, SEEN], ids=["unseen", "seen"])
def test_a_policy_that_fails_does_not_stop_the_others(
    policy: Policy, reason: str, contract: Contract, runtime: Runtime, item: Item
) -> None:
    tasks = [named("snapkv"), scripted(policy), named("full"), named("random")]
    first, failed, *others = run_item(make_setup(runtime, contract), item, tasks)
    assert isinstance(failed, Failure)
    assert failed.cell == tasks[1].cell
    if contract is CONTRACT:
        raised = isinstance(policy, Broken) and policy.how in {"raises", "exits", "usage"}
        place = r" \(test_item_run\.py:\d+\)" if raised else ""
        assert re.fullmatch(re.escape(reason) + place, failed.reason)
    sound = [tasks[0], *tasks[2:]]
    due = records_of(run_item(make_setup(runtime, contract), item, sound))
    assert [r.mask_digest for r in due] == [
        r.mask_digest for r in (first, *others) if isinstance(r, Record)
    ]


def test_losing_a_sink_is_a_failure(runtime: Runtime, item: Item) -> None:
    (failed,) = run_item(make_setup(runtime), item, [scripted(Broken("mirrored"))])
    assert isinstance(failed, Failure)
    assert re.search(r"select evicted protected tokens \[\d+", failed.reason)


def test_an_uneven_policy_at_original_positions_is_sound(runtime: Runtime, item: Item) -> None:
    (record,) = records_of(run_item(make_setup(runtime), item, [scripted(Broken("uneven"))]))
    assert record.kept == (21, 19)
    assert record.realised_retention == 0.25
    assert record.cache_bytes == 40 * ENTRY


def test_a_budget_below_the_sinks_is_a_failure_of_that_cell(runtime: Runtime, item: Item) -> None:
    tasks = [named("snapkv", Fraction(1, 100)), named("snapkv", HALF)]
    failed, record = run_item(make_setup(runtime), item, tasks)
    assert isinstance(failed, Failure)
    assert "a budget of 0 entries a head cannot hold the 2 sinks" in failed.reason
    assert isinstance(record, Record)


def test_when_all_fail_there_is_a_failure_for_each(runtime: Runtime, item: Item) -> None:
    tasks = [scripted(Broken("raises"), "one"), scripted(Broken("nan"), "two")]
    for contract in (CONTRACT, SEEN):
        results = list(run_item(make_setup(runtime, contract), item, tasks))
        assert [type(result) for result in results] == [Failure, Failure]


@dataclass(frozen=True)
class LongOnly(Broken):
    def score(self, view: View) -> Tensor:
        if view.tokens > TOKENS + 3:
            raise ValueError("too long")
        return super().score(view)


def test_failing_on_a_later_question_fails_the_whole_item(runtime: Runtime, item: Item) -> None:
    tasks = [scripted(LongOnly()), named("snapkv")]
    failed, record = run_item(make_setup(runtime, SEEN), item, tasks)
    assert isinstance(failed, Failure)
    assert "too long" in failed.reason
    assert isinstance(record, Record)
    assert len(record.questions) == 3


def test_a_cell_that_does_not_fit_alone_is_a_failure_of_that_cell(
    runtime: Runtime, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_device(
        runtime: Runtime, request: Request, cells: Sequence[Kept]
    ) -> list[Answers | ModelProblem]:
        return [ModelProblem("too large"), *answer(runtime, request, cells[1:])]

    monkeypatch.setattr(item_run, "answer_each", full_device)
    tasks = [named("snapkv"), named("random")]
    failed, record = run_item(make_setup(runtime), item, tasks)
    assert failed == Failure(cell=tasks[0].cell, reason="too large")
    assert isinstance(record, Record)
    assert record.policy == "random"


@pytest.mark.parametrize(("contract", "passes"), [(CONTRACT, 1), (SEEN, 3)])
def test_a_context_is_prefilled_once_or_once_for_each_question_that_is_seen(
    contract: Contract,
    passes: int,
    runtime: Runtime,
    item: Item,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefilled: list[int] = []

    def noted(runtime: Runtime, context: Sequence[int], *given: Any, **named: Any) -> Any:
        prefilled.append(len(context))
        return prefill(runtime, context, *given, **named)

    monkeypatch.setattr(item_run, "prefill", noted)
    masks = Masks(monkeypatch)
    tasks = [named("snapkv"), named("floor"), named("full")]
    snapkv, floor, full = records_of(run_item(make_setup(runtime, contract), item, tasks))
    lengths = [TOKENS] if passes == 1 else [TOKENS + 3, TOKENS + 4, TOKENS + 5]
    assert prefilled == lengths
    for record in (snapkv, floor, full):
        assert len(record.questions) == 3
        assert len(record.mask_digest) == passes
        assert record.tokens == (TOKENS if passes == 1 else TOKENS + 4)
    # The budget follows the length of what is in the cache.
    budgets = [10] if passes == 1 else [11, 11, 11]
    kept = [mask for name, made in masks.of.items() for mask in made if name.startswith("snapkv")]
    assert [int(mask.sum()) for mask in kept] == [4 * budget for budget in budgets]
    assert tuple(mask_digest(mask) for mask in kept) == snapkv.mask_digest
    shares = [
        naive_share(mask, item.evidence if passes == 1 else question.evidence)
        for mask, question in zip(kept, item.questions, strict=False)
    ]
    assert snapkv.evidence_kept == pytest.approx(sum(shares) / len(shares))


def test_seen_and_unseen_full_caches_answer_alike(runtime: Runtime, item: Item) -> None:
    pair = [
        records_of(run_item(make_setup(runtime, contract, Generate.ALL), item, [named("full")]))[0]
        for contract in (CONTRACT, SEEN)
    ]
    for unseen, seen in zip(pair[0].questions, pair[1].questions, strict=True):
        assert seen.nll == pytest.approx(unseen.nll, rel=1e-4)
        assert seen.generated == unseen.generated
        assert seen.exact == unseen.exact


def continuation(plain: PreTrainedModel, ids: Sequence[int], count: int) -> tuple[int, ...]:
    """Greedy, by running the whole sequence again for each token."""
    found = list(ids)
    with torch.inference_mode():
        for _ in range(count):
            logits = plain(torch.tensor([found]), use_cache=False).logits
            found.append(int(logits[0, -1].argmax()))
    return tuple(found[len(ids) :])


class Replies:
    """Generated ids of every cell, in the order of the tasks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[tuple[int, ...]] = []
        monkeypatch.setattr(item_run, "answer_each", self.note)

    def note(self, runtime: Runtime, request: Request, cells: Sequence[Kept]) -> list[Answers]:
        answers = answer(runtime, request, cells)
        for each in answers:
            assert each.generated[0] is not None
            self.ids.append(tuple(each.generated[0]))
        return answers


def test_exact_means_that_greedy_decoding_begins_with_the_reference(
    runtime: Runtime, plain_model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [named(name, r) for name in names() for r in (QUARTER, Fraction(9, 10))]
    tasks = list({task.key: task for task in tasks}.values())
    bare = make_question(0, max_new_tokens=8)
    ids = [*make_item(bare).context, *bare.question, *bare.tail]
    reference = continuation(plain_model, ids, 8)
    assert not runtime.stop.intersection(reference)
    seen: set[float] = set()
    for length in (1, 2, 4):
        due = reference[:length]
        question = replace(bare, answer=due, slots=((0, length),))
        replies = Replies(monkeypatch)
        setup = make_setup(runtime, generate=Generate.ALL)
        records = records_of(run_item(setup, make_item(question), tasks))
        for record, reply in zip(records, replies.ids, strict=True):
            (answered,) = record.questions
            assert answered.exact == float(reply[:length] == due)
            assert (answered.slot_accuracy == 1) == (answered.exact == 1)
            assert answered.generated == runtime.encoder.text(reply).strip()
            seen.add(answered.exact)
            if record.policy == "full":
                assert reply == reference
                assert answered.exact == answered.slot_accuracy == 1
    assert seen == {0.0, 1.0}


@pytest.mark.parametrize("layout", QuestionMode)
def test_the_future_is_the_largest_attention_of_the_true_question_and_answer(
    layout: QuestionMode, runtime: Runtime, plain_model: PreTrainedModel, item: Item
) -> None:
    questions = item.questions if layout is QuestionMode.UNSEEN else item.questions[:1]
    after = {
        QuestionMode.UNSEEN: (),
        QuestionMode.SEEN: questions[0].question,
        QuestionMode.PROMPT: (*questions[0].question, *questions[0].tail),
    }
    context = (*item.context, *after[layout])
    prefilled, _ = prefill(runtime, context)
    request = Request(context=prefilled, questions=questions, layout=layout, generate=0)
    everything = Kept(mask=torch.ones(LAYERS, KV_HEADS, len(context), dtype=torch.bool))
    _, future = score_in_full(runtime, request, everything, observe=True)
    again = layout is QuestionMode.PROMPT
    best = naive_future(plain_model, item, questions, len(context) - again)
    found = torch.stack(list(future.values()))
    assert found.shape[-1] == len(context)
    torch.testing.assert_close(found[..., : best.shape[-1]], best, rtol=1e-3, atol=1e-5)
    assert (found[..., best.shape[-1] :] == 1).all()


def naive_future(
    plain: PreTrainedModel, item: Item, questions: Sequence[Question], cached: int
) -> Tensor:
    """From transformers' own attention maps, ``[layers, H, n]``."""
    best = torch.zeros(LAYERS, HEADS, cached)
    before = plain.config._attn_implementation
    plain.set_attn_implementation("eager")
    for each in questions:
        ids = [*item.context, *each.question, *each.tail, *each.answer[:-1]]
        with torch.inference_mode():
            output = plain(torch.tensor([ids]), output_attentions=True, use_cache=False)
        maps = torch.stack([layer[0] for layer in output.attentions])
        best = torch.maximum(best, maps[:, :, cached:, :cached].amax(dim=2))
    plain.set_attn_implementation(before)
    return best


@pytest.mark.parametrize("beside", [[], ["full", "h2o", "snapkv"]])
def test_the_oracle_keeps_what_the_future_attends_to(
    beside: list[str],
    runtime: Runtime,
    plain_model: PreTrainedModel,
    item: Item,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = Masks(monkeypatch)
    tasks = [*(named(name) for name in beside), named("oracle")]
    records_of(run_item(make_setup(runtime), item, tasks))
    best = naive_future(plain_model, item, item.questions, TOKENS)
    scores = best.view(LAYERS, KV_HEADS, HEADS // KV_HEADS, TOKENS).mean(dim=2).tolist()
    protected = {0, 1, 36, 37, 38, 39}
    (mask,) = masks.of["oracle 10"]
    for layer in range(LAYERS):
        for head in range(KV_HEADS):
            row = scores[layer][head]
            rest = sorted(set(range(TOKENS)) - protected, key=lambda j: -row[j])
            expected = protected | set(rest[:4])
            assert set(mask[layer, head].nonzero().flatten().tolist()) == expected


@dataclass(frozen=True)
class Peeping(Policy):
    """Fails when it sees what it did not ask for."""

    needs = frozenset({Queries(3)})

    def score(self, view: View) -> Tensor:
        assert view.queries is not None
        assert view.queries.shape == (HEADS, 3, 16)
        assert view.column_sums is None
        assert view.future is None
        return torch.zeros(view.kv_heads, view.tokens)


def test_no_policy_sees_what_its_neighbours_asked_for(runtime: Runtime, item: Item) -> None:
    tasks = [named("oracle"), named("h2o"), named("snapkv"), scripted(Peeping())]
    records_of(run_item(make_setup(runtime), item, tasks))


class Learned(Policy):
    """Scores with a trained module, as a policy that loads a checkpoint does."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module = torch.nn.Linear(16, 1)

    def score(self, view: View) -> Tensor:
        scores: Tensor = self.module(view.keys)[..., 0]
        return scores


def test_a_policy_may_score_with_a_module(runtime: Runtime, item: Item) -> None:
    (record,) = records_of(run_item(make_setup(runtime), item, [scripted(Learned())]))
    assert record.realised_retention == 0.25


@dataclass(frozen=True)
class Informed(Policy):
    """Keeps the tokens of the largest values, which it looks up as it selects."""

    scored: list[int] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)

    def score(self, view: View) -> Tensor:
        self.scored.append(view.tokens)
        return torch.zeros(view.kv_heads, view.tokens)

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        self.chosen.append(choice.trace.tokens)
        sums = torch.stack([view.values.float().sum(dim=-1) for view in choice.trace.views])
        return super().select(replace(choice, scores=choice.scores + sums), budgets)


def test_a_policy_scores_a_context_once_and_selects_from_it_for_each_retention(
    runtime: Runtime,
) -> None:
    policy = Informed()
    tasks = [scripted(policy, retention=retention) for retention in (QUARTER, HALF)]
    first, second = make_item(seed=1), make_item(tokens=TOKENS - 4, seed=2)
    digests = []
    for item in (first, second, first):
        records = records_of(run_item(make_setup(runtime), item, tasks))
        digests.append([record.mask_digest for record in records])
    lengths = [TOKENS, TOKENS - 4, TOKENS]
    assert policy.scored == [each for each in lengths for _ in range(LAYERS)]
    assert policy.chosen == [each for each in lengths for _ in tasks]
    assert digests[0] == digests[2]
    assert digests[0] != digests[1]


class Careless(Policy):
    """Works on the scores in place, as many implementations of top-k do."""

    def score(self, view: View) -> Tensor:
        return torch.rand(view.kv_heads, view.tokens, generator=view.rng)

    def allocate(self, choice: Choice) -> Tensor:
        choice.scores.neg_()
        return super().allocate(choice)

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        mask = super().select(choice, budgets)
        choice.scores.masked_fill_(mask, -9.0)
        return mask


def test_working_on_the_scores_in_place_does_not_reach_the_next_retention(
    runtime: Runtime, item: Item
) -> None:
    tasks = [scripted(Careless(), retention=retention) for retention in (QUARTER, HALF)]
    together = records_of(run_item(make_setup(runtime), item, tasks))
    for task, record in zip(tasks, together, strict=True):
        (alone,) = records_of(run_item(make_setup(runtime), item, [task]))
        assert alone.mask_digest == record.mask_digest


def test_replies(item: Item) -> None:
    count = len(item.questions)
    assert [generate.replies(count) for generate in Generate] == [1, 3, 0]


def test_sliding_layers_are_not_counted_and_compact_policies_do_not_stop_the_others(
    make_pair: MakePair, item: Item
) -> None:
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
        "sliding_window": 9,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }
    _, runtime = make_pair(Gemma3TextConfig(**values))
    tasks = [named(name) for name in ("full", "snapkv", "streaming-llm", "h2o")]
    full, snapkv, streaming, h2o = run_item(make_setup(runtime), item, tasks)
    assert isinstance(full, Record)
    assert full.kept == (TOKENS,)
    for result in (snapkv, h2o):
        assert isinstance(result, Record)
        assert result.kept == (10,)
        assert result.realised_retention == 0.25
        assert result.cache_bytes == 10 * 2 * 8 * 4
    assert isinstance(streaming, Record) or "compact positions" in streaming.reason


def spoil_counted(view: View) -> None:
    view.keys.zero_()


def spoil_uncounted(view: View) -> None:
    view.values.data.neg_()


def spoil_positions(view: View) -> None:
    view.positions.data.add_(1)


@pytest.mark.parametrize("spoil", [spoil_counted, spoil_uncounted, spoil_positions])
def test_a_policy_that_spoils_shared_tensors_fails_alone(
    spoil: Callable[[View], None], runtime: Runtime, item: Item
) -> None:
    class Spoils(Careless):
        def score(self, view: View) -> Tensor:
            spoil(view)
            return super().score(view)

    tasks = [named("snapkv"), scripted(Spoils()), named("knorm"), named("full")]
    failed, *fine = sorted(
        run_item(make_setup(runtime), item, tasks), key=lambda one: isinstance(one, Record)
    )
    assert isinstance(failed, Failure)
    assert "it changed the tensors of its view in place" in failed.reason
    beside = records_of(iter(fine))
    alone = records_of(run_item(make_setup(runtime), item, [tasks[0], *tasks[2:]]))
    assert [one.mask_digest for one in beside] == [one.mask_digest for one in alone]
    assert [one.metrics["nll"] for one in beside] == [one.metrics["nll"] for one in alone]


def spoil_and_fail(view: View) -> None:
    spoil_uncounted(view)
    raise ZeroDivisionError


@pytest.mark.parametrize("spoil", [spoil_counted, spoil_uncounted, spoil_and_fail])
def test_a_policy_that_spoils_shared_tensors_while_it_selects_fails_alone(
    spoil: Callable[[View], None], runtime: Runtime, item: Item
) -> None:
    class SpoilsLater(Careless):
        def select(self, choice: Choice, budgets: Tensor) -> Tensor:
            spoil(choice.trace.views[-1])
            return super().select(choice, budgets)

    tasks = [named("snapkv"), scripted(SpoilsLater()), named("knorm"), named("full")]
    first, failed, *others = run_item(make_setup(runtime), item, tasks)
    assert isinstance(failed, Failure)
    assert "policy 'mine': it changed the tensors of its view in place" in failed.reason
    alone = records_of(run_item(make_setup(runtime), item, [tasks[0], *tasks[2:]]))
    for one, other in zip((first, *others), alone, strict=True):
        assert isinstance(one, Record)
        assert one.mask_digest == other.mask_digest
        assert one.metrics["nll"] == other.metrics["nll"]


def test_a_policy_that_changes_torch_for_all_fails_alone_and_at_every_retention(
    runtime: Runtime, item: Item
) -> None:
    class Doubles(Careless):
        def score(self, view: View) -> Tensor:
            score = super().score(view)
            if view.layer == 1:
                torch.set_default_dtype(torch.float64)
            return score

    class Plain(Policy):
        def score(self, view: View) -> Tensor:
            return torch.zeros(view.kv_heads, view.tokens)

    tasks = [scripted(Doubles(), retention=retention) for retention in (QUARTER, HALF)]
    results = list(run_item(make_setup(runtime), item, [*tasks, scripted(Plain(), "plain")]))
    for failed in results[:2]:
        assert isinstance(failed, Failure)
        assert "policy 'mine': it changed the default dtype from torch.float32" in failed.reason
    assert isinstance(results[2], Record), "zeros of the default dtype are float32 again"
    assert torch.get_default_dtype() is torch.float32


def test_an_interrupt_names_the_policy_that_was_running(runtime: Runtime, item: Item) -> None:
    class Interrupts(Careless):
        def score(self, view: View) -> Tensor:
            raise KeyboardInterrupt(view.layer)

    with pytest.raises(
        KeyboardInterrupt, match=r"policy 'mine' was running \(test_item_run.py:\d+"
    ):
        list(run_item(make_setup(runtime), item, [named("snapkv"), scripted(Interrupts())]))
