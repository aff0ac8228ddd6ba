from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import Ends, Protection, RandomTokens, Text, Trace
from kvharness.engine.select import keep_mask, score_tokens
from kvharness.model.context_reading import prefill
from kvharness.policy.observation.probe import Material
from kvharness.testing import Check, checks_for
from kvharness_policies.dapq import DapQ

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.model.loaded import Runtime

TOKENS = 40
CONTEXT = tuple(range(200, 200 + TOKENS))


def traced(runtime: Runtime, policy: DapQ) -> Trace:
    prefilled, _ = prefill(runtime, CONTEXT, policy.needs)
    layers = tuple(prefilled.layers.values())
    return Trace(layers=layers, positions=torch.arange(TOKENS))


def naive_scores(plain: PreTrainedModel, pseudo: tuple[int, ...], start: int) -> Tensor:
    """From one plain pass over context and pseudo tokens: ``[layers, K, n]``."""
    count = len(pseudo)
    before = plain.config._attn_implementation
    plain.set_attn_implementation("eager")
    with torch.inference_mode():
        output = plain(
            torch.tensor([[*CONTEXT, *pseudo]]),
            attention_mask=torch.ones(1, TOKENS + count, dtype=torch.int64),
            position_ids=torch.tensor([[*range(TOKENS), *range(start, start + count)]]),
            output_attentions=True,
            use_cache=False,
        )
    plain.set_attn_implementation(before)
    scores = []
    for attention in output.attentions:
        paid = attention[0, :, TOKENS:, :TOKENS].sum(dim=1)
        # Query heads 0 and 1 read KV head 0.
        scores.append(torch.stack([(paid[0] + paid[1]) / 2, (paid[2] + paid[3]) / 2]))
    return torch.stack(scores)


@pytest.mark.parametrize(
    ("policy", "ids", "start"),
    [
        (DapQ(), (*CONTEXT[:4], *CONTEXT[-28:]), TOKENS),
        (DapQ(queries=6, prefix=2), (*CONTEXT[:2], *CONTEXT[-4:]), TOKENS),
        (DapQ(queries=6, prefix=6), CONTEXT[:6], TOKENS),
        (DapQ(queries=300), CONTEXT, TOKENS),
        (DapQ(queries=6, offset=-12), (*CONTEXT[:4], *CONTEXT[-2:]), TOKENS - 12),
        (DapQ(queries=6, offset=-1000), (*CONTEXT[:4], *CONTEXT[-2:]), 0),
    ],
)
def test_scores_are_the_attention_of_the_pseudo_tokens(
    policy: DapQ, ids: tuple[int, ...], start: int, runtime: Runtime, plain_model: PreTrainedModel
) -> None:
    scores = score_tokens(policy, traced(runtime, policy), name="tested")
    torch.testing.assert_close(scores, naive_scores(plain_model, ids, start), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("content", ["random", "fixed"])
def test_other_content_is_read_at_the_same_place(
    content: str, runtime: Runtime, plain_model: PreTrainedModel
) -> None:
    policy = DapQ(queries=9, content=content)
    material = Material(context=CONTEXT, encoder=runtime.encoder, vocabulary=1502)
    (part,) = policy.probe.parts(material)
    assert len(part.ids) == 9
    scores = score_tokens(policy, traced(runtime, policy), name="tested")
    torch.testing.assert_close(
        scores, naive_scores(plain_model, part.ids, TOKENS), rtol=1e-3, atol=1e-5
    )


def test_what_is_read_follows_from_the_parameters() -> None:
    assert DapQ().needs == frozenset({Ends(prefix=4, suffix=28)})
    assert DapQ(queries=8, offset=3).probe == Ends(prefix=4, suffix=4, offset=3)
    assert DapQ(queries=8, content="random").probe == RandomTokens(count=8)
    fixed = DapQ(queries=8, content="fixed").probe
    assert isinstance(fixed, Text)
    assert fixed.count == 8
    # Neither content nor position: both read the same.
    assert DapQ(kernel=7).needs == DapQ().needs


def test_the_fixed_text_is_longer_than_the_default_probe(runtime: Runtime) -> None:
    fixed = DapQ(content="fixed").probe
    assert isinstance(fixed, Text)
    assert len(runtime.encoder.ids(fixed.text)) >= 32


def test_pooling_takes_the_largest_neighbour_of_each_query_head(runtime: Runtime) -> None:
    plain, pooled = DapQ(queries=6), DapQ(queries=6, kernel=3)
    view = traced(runtime, plain).views[1]
    (part,) = view.probed(plain.probe)
    keys = torch.cat((view.keys, part.keys), dim=1)
    expected = torch.zeros(2, TOKENS)
    for head in range(4):
        logits = part.queries[head] @ keys[head // 2].T * view.scaling
        for row in range(6):
            logits[row, TOKENS + row + 1 :] = float("-inf")
        paid = logits.softmax(dim=-1).sum(dim=0)[:TOKENS].tolist()
        for j in range(TOKENS):
            expected[head // 2, j] += max(paid[max(0, j - 1) : j + 2]) / 2
    torch.testing.assert_close(pooled.score(view), expected, rtol=1e-4, atol=1e-6)


def test_nothing_is_protected_beside_the_contract(runtime: Runtime) -> None:
    policy = DapQ(queries=6)
    trace = traced(runtime, policy)
    mask = keep_mask(policy, trace, 10, Protection(sinks=1, recents=2), name="dapq")
    scores = score_tokens(policy, trace, name="tested")
    scores[..., 0] = scores[..., -2:] = float("inf")
    for kept, row in zip(mask.flatten(0, 1), scores.flatten(0, 1), strict=True):
        assert set(kept.nonzero().flatten().tolist()) == set(row.topk(10).indices.tolist())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"queries": 0}, "queries=0: expected 1 or more tokens"),
        ({"queries": 3}, "prefix=4: expected 0 to queries=3 tokens"),
        ({"prefix": -1}, "prefix=-1: expected 0 to queries=32 tokens"),
        ({"content": "span"}, "content='span': expected one of prefix-suffix, random, fixed"),
        ({"kernel": 4}, "kernel=4: expected an odd number, 1 or more"),
    ],
)
def test_mistakes_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DapQ(**parameters)


@pytest.mark.parametrize("check", checks_for(DapQ()), ids=repr)
def test_it_conforms(check: Check) -> None:
    check.function(DapQ(), count=6)
