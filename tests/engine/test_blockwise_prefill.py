from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import Future
from kvharness.contract import Protection, QuestionMode
from kvharness.engine import blockwise_prefill
from kvharness.engine.answer import Request, answer
from kvharness.engine.blockwise_prefill import BlockRead, read_each
from kvharness.engine.evictor import Evictor
from kvharness.errors import KvharnessError, PolicyProblem
from kvharness.model.context_reading import prefill
from kvharness.policy.interface import Policy
from kvharness.policy.view import Capabilities
from kvharness_policies.caote import CAOTE
from kvharness_policies.floor import Floor
from kvharness_policies.h2o import H2O
from kvharness_policies.keydiff import KeyDiff
from kvharness_policies.oracle import Oracle
from kvharness_policies.tova import TOVA
from tests.conftest import tiny_config
from tests.engine.test_rolling_decode import ANSWER, CONTEXT, LEAD, TOKENS, question
from tests.naive_decoding import Naive, caote_h2o, caote_tova, keydiff

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness.model.loaded import Runtime
    from kvharness.policy.view import Step, View
    from tests.conftest import MakePair

BUDGET, BLOCK = 10, 7
PROTECTION = Protection(sinks=2, recents=3)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise_prefill, "BLOCK", BLOCK)


def evictor(policy: Policy, budget: int = BUDGET, name: str = "mine") -> Evictor:
    return Evictor(
        name=name, policy=policy, budget=budget, protection=PROTECTION, words=("0", "item", name)
    )


def request_of(runtime: Runtime) -> Request:
    prefilled, _ = prefill(runtime, CONTEXT)
    return Request(
        context=prefilled, questions=(question(),), layout=QuestionMode.UNSEEN, generate=0
    )


def read(runtime: Runtime, *evictors: Evictor) -> list[BlockRead | KvharnessError]:
    return read_each(runtime, request_of(runtime), CONTEXT, evictors)


def good(read: BlockRead | KvharnessError) -> BlockRead:
    assert isinstance(read, BlockRead), read
    return read


@pytest.mark.parametrize(
    ("policy", "score", "recents"),
    [
        (KeyDiff(), keydiff, 3),
        (CAOTE(TOVA()), caote_tova, 3),
        (CAOTE(H2O()), caote_h2o, BUDGET // 2),
    ],
    ids=["keydiff", "caote(tova)", "caote(h2o)"],
)
def test_later_blocks_see_what_is_left(
    make_pair: MakePair,
    policy: Policy,
    score: Callable[[Naive, int, int], list[float]],
    recents: int,
) -> None:
    """Kept sets, keys and the answer's logits are those of masked attention from scratch."""
    plain, runtime = make_pair(tiny_config())
    naive = Naive(plain, score)
    (found,) = map(good, read(runtime, evictor(policy)))
    with torch.no_grad():
        for start in range(0, TOKENS, BLOCK):
            naive.read(CONTEXT[start : start + BLOCK])
            naive.evict(BUDGET, PROTECTION.sinks, recents)
        for (layer, head), held in naive.held.items():
            assert found.kept.mask[layer, head].nonzero()[:, 0].tolist() == held
            keys = found.context.layers[layer].keys[head, held]
            assert torch.allclose(keys, naive.keys[layer][held, head], atol=1e-3)
        due = torch.stack([naive.read([each]) for each in [*LEAD, *ANSWER[:-1]]])
    own = Request(
        context=found.context, questions=(question(),), layout=QuestionMode.UNSEEN, generate=0
    )
    (told,) = answer(runtime, own, [found.kept])
    logprob = due[-len(ANSWER) :].log_softmax(dim=-1)[range(len(ANSWER)), ANSWER]
    assert torch.allclose(told.logprob[0], logprob, atol=2e-3)


def test_a_budget_of_everything_is_the_plain_prefill(runtime: Runtime) -> None:
    request = request_of(runtime)
    (found,) = map(good, read(runtime, evictor(KeyDiff(), budget=TOKENS)))
    assert bool(found.kept.mask.all())
    for name, layer in request.context.layers.items():
        assert torch.allclose(found.context.layers[name].keys, layer.keys, atol=1e-4)
        assert torch.allclose(found.context.layers[name].values, layer.values, atol=1e-4)


def test_every_head_holds_the_budget_and_what_is_protected(runtime: Runtime) -> None:
    for budget in (5, BUDGET, TOKENS - 1):
        (found,) = map(good, read(runtime, evictor(KeyDiff(), budget=budget)))
        assert set(found.kept.mask.sum(dim=-1).flatten().tolist()) == {budget}
        assert bool(found.kept.mask[..., :2].all())
        assert bool(found.kept.mask[..., -3:].all())


def test_cells_side_by_side_read_as_alone(runtime: Runtime) -> None:
    evictors = [evictor(KeyDiff()), evictor(Floor()), evictor(CAOTE(H2O())), evictor(KeyDiff(), 15)]
    for each, beside in zip(evictors, read(runtime, *evictors), strict=True):
        (alone,) = map(good, read(runtime, each))
        assert torch.equal(alone.kept.mask, good(beside).kept.mask)


def test_the_oracle_knows_each_entry_wherever_it_is_held(runtime: Runtime) -> None:
    """What it keeps is the best of the best: the same as of all at once."""
    heads = runtime.model.config.num_attention_heads
    future = [torch.rand(heads, TOKENS, generator=torch.Generator().manual_seed(x)) for x in (0, 1)]
    plain = request_of(runtime)
    known = {
        index: replace(layer, observed={Future(): each})
        for (index, layer), each in zip(plain.context.layers.items(), future, strict=True)
    }
    request = replace(plain, context=replace(plain.context, layers=known))
    (found,) = map(good, read_each(runtime, request, CONTEXT, [evictor(Oracle())]))
    for layer, each in enumerate(future):
        scores = each.unflatten(0, (2, -1)).mean(dim=1)
        for head in range(2):
            free = sorted(range(2, TOKENS - 3), key=lambda j: -float(scores[head, j]))
            kept = set(found.kept.mask[layer, head].nonzero()[:, 0].tolist())
            assert kept == {0, 1, *free[: BUDGET - 5], *range(TOKENS - 3, TOKENS)}


class Failing(Policy):
    capabilities = Capabilities(blocks=True)

    def score(self, view: View) -> Any:
        return torch.full((view.kv_heads, view.tokens), float("inf"))

    def step(self, step: Step) -> Any:
        return self.score(step.view)


def test_a_policy_that_fails_fails_alone(runtime: Runtime) -> None:
    beside, failed = read(runtime, evictor(KeyDiff()), evictor(Failing(), name="bad"))
    assert isinstance(failed, PolicyProblem)
    assert "policy 'bad' (layer 0): step has 14 NaN" in str(failed)
    (alone,) = map(good, read(runtime, evictor(KeyDiff())))
    assert torch.equal(good(beside).kept.mask, alone.kept.mask)


def test_sliding_layers_are_read_whole(make_pair: MakePair) -> None:
    from transformers import Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=1502,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=9,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=2048,
    )
    _, runtime = make_pair(config)
    request = request_of(runtime)
    (found,) = map(good, read(runtime, evictor(KeyDiff(), budget=TOKENS)))
    for name, sliding in request.context.sliding.items():
        assert torch.allclose(found.context.sliding[name].keys, sliding.keys, atol=1e-4)
    for name, layer in request.context.layers.items():
        assert torch.allclose(found.context.layers[name].keys, layer.keys, atol=1e-4)
