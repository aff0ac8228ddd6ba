from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness.contract import Protection, QuestionMode
from kvharness.engine.answer import Request, answer
from kvharness.engine.evictor import Evictor
from kvharness.engine.rolling_decode import Rolled, Rollout, roll_each
from kvharness.engine.select import keep_mask, score_tokens
from kvharness.errors import KvharnessError, PolicyProblem
from kvharness.items.item import Question
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import Kept
from kvharness.policy.interface import Policy
from kvharness.policy.trace import Trace
from kvharness.policy.view import Capabilities, Positions, Step
from kvharness.records.record import Held
from kvharness_policies.floor import Floor
from kvharness_policies.h2o import H2O
from kvharness_policies.position import Position
from kvharness_policies.random import Random
from kvharness_policies.sage_kv import SageKV
from kvharness_policies.scissorhands import Scissorhands
from kvharness_policies.streaming_llm import StreamingLLM
from kvharness_policies.tova import TOVA
from tests.conftest import tiny_config
from tests.naive_decoding import SAGE_RECENTS, Naive, h2o, latest, low_counts, sage, tova

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness.model.loaded import Runtime
    from kvharness.policy.choice import Choice
    from kvharness.policy.view import View
    from tests.conftest import MakePair

TOKENS, BUDGET = 24, 12
PROTECTION = Protection(sinks=2, recents=3)
WINDOW = 9


def draw(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [int(each) for each in torch.randint(2, 1500, (count,), generator=generator)]


CONTEXT, LEAD, ANSWER = draw(TOKENS, 0), draw(5, 1), draw(6, 2)


def question(**changes: Any) -> Question:
    values: dict[str, Any] = {
        "text": "",
        "question": tuple(LEAD[:4]),
        "tail": tuple(LEAD[4:]),
        "answer": tuple(ANSWER),
        "slots": ((0, len(ANSWER)),),
        "reference": "",
        "references": ("",),
        "max_new_tokens": 5,
    }
    return Question(**{**values, **changes})


def request_of(runtime: Runtime, policy: Policy, *, generate: int = 0) -> Request:
    prefilled, _ = prefill(runtime, CONTEXT, policy.needs)
    return Request(
        context=prefilled, questions=(question(),), layout=QuestionMode.UNSEEN, generate=generate
    )


def rolled(
    request: Request, policy: Policy, budget: int = BUDGET, protection: Protection = PROTECTION
) -> Rolled:
    """A cell as the engine makes it."""
    name = type(policy).__name__
    trace = Trace(
        layers=tuple(request.context.layers.values()),
        positions=torch.arange(TOKENS),
    ).for_policy(policy.needs, ("0", "item", name))
    kept = min(budget, TOKENS)
    scores = score_tokens(policy, trace, name=name)
    mask = keep_mask(policy, trace, kept, protection, name=name)
    evictor = Evictor(
        name=name, policy=policy, budget=budget, protection=protection, words=("0", "item", name)
    )
    return Rolled(
        kept=Kept(mask=mask, positions=policy.positions),
        evictor=evictor,
        standing=evictor.standing(mask, scores),
    )


@pytest.fixture(scope="module")
def pair(make_pair: MakePair) -> tuple[Any, Runtime]:
    return make_pair(tiny_config())


@pytest.mark.parametrize(
    ("policy", "score", "recents"),
    [
        (H2O(), h2o, BUDGET // 2),
        (TOVA(), tova, 3),
        (Position(sinks=2), latest, 3),
        (StreamingLLM(sinks=2), latest, 3),
        (SageKV(sinks=2, recents=SAGE_RECENTS), sage, SAGE_RECENTS),
        (Scissorhands(window=WINDOW, recents=4), low_counts(WINDOW), 4),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Policy) else "",
)
def test_every_step_is_that_of_masked_attention_from_scratch(
    pair: tuple[Any, Runtime],
    policy: Policy,
    score: Callable[[Naive, int, int], list[float]],
    recents: int,
) -> None:
    plain, runtime = pair
    naive = Naive(plain, score, compact=policy.positions is Positions.COMPACT)
    request = request_of(runtime, policy)
    rollout = Rollout.start(runtime, request, [rolled(request, policy)])
    with torch.no_grad():
        naive.read(CONTEXT)
        naive.evict(BUDGET, PROTECTION.sinks, recents)
        expect_held(rollout, naive)
        for tokens in [LEAD, *([token] for token in ANSWER)]:
            due = naive.read(tokens)
            naive.evict(BUDGET, PROTECTION.sinks, recents)
            logits = rollout.read(torch.tensor([tokens]))[0]
            assert torch.allclose(logits, due, atol=2e-3, rtol=1e-3)
            expect_held(rollout, naive)


def expect_held(rollout: Rollout, naive: Naive) -> None:
    """The cache holds the budget and the naive version's entries, in every layer and head."""
    assert rollout.cache.counts() == (BUDGET, BUDGET)
    positions = rollout.cache.positions(0)
    for (layer, head), entries in naive.held.items():
        assert positions[layer][head].tolist() == entries


def test_a_budget_of_everything_is_the_plain_engine(runtime: Runtime) -> None:
    request = request_of(runtime, H2O(), generate=1)
    plenty = TOKENS + len(LEAD) + len(ANSWER)
    cell = rolled(request, H2O(), budget=plenty)
    (mine,) = roll_each(runtime, request, [cell])
    (due,) = answer(runtime, request, [Kept(mask=cell.kept.mask)])
    assert not isinstance(mine, KvharnessError)
    assert mine.greedy[0].tolist() == due.greedy[0].tolist()
    assert torch.allclose(mine.logprob[0], due.logprob[0], atol=1e-4)
    assert mine.generated == due.generated


@pytest.mark.parametrize("policy", [H2O(), TOVA(), StreamingLLM(), Random(), Floor()])
def test_the_budget_is_held_after_every_step(runtime: Runtime, policy: Policy) -> None:
    request = request_of(runtime, policy, generate=1)
    request = replace(request, questions=(question(), question(max_new_tokens=3)))
    cells = [rolled(request, policy), rolled(request, policy, budget=7)]
    answers = roll_each(runtime, request, cells)
    for each, budget in zip(answers, (BUDGET, 7), strict=True):
        assert not isinstance(each, KvharnessError)
        steps = 2 * len(ANSWER) + len(each.generated[0] or []) - 1
        assert each.held is not None
        assert (each.held.least, each.held.most) == (budget, budget)
        # Forced answers, and the greedy reply to the first question; each shares its lead.
        assert each.held.steps >= steps
        entry = 2 * runtime.model.config.head_dim * 4
        assert each.cache_bytes == 2 * 2 * budget * entry
        assert each.generated[1] is None


def test_cells_side_by_side_answer_as_alone(runtime: Runtime) -> None:
    request = request_of(runtime, H2O(), generate=1)
    policies: list[Policy] = [H2O(), Floor(), Random(), StreamingLLM(), TOVA()]
    observed = replace(request, context=_observed(runtime))
    cells = [rolled(observed, policy) for policy in policies]
    together = roll_each(runtime, observed, cells)
    for cell, beside in zip(cells, together, strict=True):
        (alone,) = roll_each(runtime, observed, [cell])
        assert not isinstance(alone, KvharnessError)
        assert not isinstance(beside, KvharnessError)
        assert torch.allclose(alone.logprob[0], beside.logprob[0], atol=1e-4)
        assert alone.generated == beside.generated


def _observed(runtime: Runtime) -> Any:
    prefilled, _ = prefill(runtime, CONTEXT, H2O().needs.union(TOVA().needs))
    return prefilled


def test_questions_start_from_the_same_cache(runtime: Runtime) -> None:
    """Nothing is left of a question when the next one is asked."""
    request = request_of(runtime, H2O(), generate=2)
    other = question(question=tuple(draw(3, 9)), answer=tuple(draw(4, 8)), slots=((0, 4),))
    both = replace(request, questions=(other, question()), generate=2)
    cell = rolled(request, H2O())
    (alone,) = roll_each(runtime, request, [cell])
    (after,) = roll_each(runtime, both, [cell])
    assert not isinstance(alone, KvharnessError)
    assert not isinstance(after, KvharnessError)
    assert torch.equal(alone.logprob[0], after.logprob[1])
    assert alone.generated[0] == after.generated[1]


class Failing(Policy):
    """Scores the context and nothing after it."""

    capabilities = Capabilities(decodes=True)

    def score(self, view: View) -> Any:
        return torch.zeros(view.kv_heads, view.tokens)

    def step(self, step: Step) -> Any:
        return step.scores * float("nan")


class Spoiling(Failing):
    """Writes into what it is shown."""

    def step(self, step: Step) -> Any:
        step.view.keys.zero_()
        return step.scores


class HeadWise(Failing):
    """Gives heads different budgets."""

    def step(self, step: Step) -> Any:
        return step.scores

    def allocate(self, choice: Choice) -> Any:
        budgets = super().allocate(choice)
        budgets[:, 0] += 1
        budgets[:, 1] -= 1
        return budgets


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Failing(), "NaN or infinite entries, expected finite numbers"),
        (Spoiling(), "changed the tensors of its view"),
        (HeadWise(), "needs equal budgets in all heads"),
    ],
)
def test_a_policy_that_fails_on_the_way_fails_alone(
    runtime: Runtime, policy: Policy, reason: str
) -> None:
    request = request_of(runtime, H2O())
    good = rolled(request, H2O())
    bad = replace(good, evictor=replace(good.evictor, policy=policy, name="bad"))
    beside, failed = roll_each(runtime, request, [good, bad])
    assert isinstance(failed, PolicyProblem)
    assert "policy 'bad'" in str(failed)
    assert reason in str(failed)
    (alone,) = roll_each(runtime, request, [good])
    assert not isinstance(alone, KvharnessError)
    assert not isinstance(beside, KvharnessError)
    assert torch.allclose(alone.logprob[0], beside.logprob[0], atol=1e-4)


def test_steps_are_told_what_is_new_and_what_was_protected(runtime: Runtime) -> None:
    told: list[tuple[int, list[int], list[float]]] = []

    class Telling(Floor):
        def step(self, step: Step) -> Any:
            assert step.positions.shape == step.scores.shape == step.view.keys.shape[:2]
            told.append(
                (step.new, step.protected.nonzero()[:, 0].tolist(), step.scores[0].tolist())
            )
            return step.scores + 1

    request = request_of(runtime, Floor())
    rollout = Rollout.start(runtime, request, [rolled(request, Telling())])
    for tokens in (LEAD, ANSWER[:1]):
        rollout.read(torch.tensor([tokens]))
    protected = [0, 1, BUDGET - 3, BUDGET - 2, BUDGET - 1]
    layers = runtime.model.config.num_hidden_layers
    assert told[0] == (len(LEAD), protected, [0.0] * (BUDGET + len(LEAD)))
    new, places, scores = told[layers]
    assert (new, places) == (1, protected)
    assert scores == [1.0] * BUDGET + [0.0]


def test_what_was_held_adds_up() -> None:
    held = Held().and_then(3, 4).and_then(2, 3)
    assert held == Held(steps=2, least=2, most=4)
    assert held.beside(Held()) == Held().beside(held) == held
    assert held.beside(Held(steps=1, least=5, most=5)) == Held(steps=3, least=2, most=5)
