from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Protection, Repeat, Trace
from kvharness.engine.select import keep_mask, score_tokens
from kvharness.model.context_reading import prefill
from kvharness.policy.observation.probe import Material
from kvharness.testing import Check, checks_for
from kvharness_policies.kvzip import KVzip

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.model.loaded import Runtime

TOKENS = 40
CONTEXT = tuple(range(200, 200 + TOKENS))


def traced(runtime: Runtime, policy: KVzip) -> Trace:
    prefilled, _ = prefill(runtime, CONTEXT, policy.needs)
    layers = tuple(prefilled.layers.values())
    return Trace(layers=layers, positions=torch.arange(TOKENS))


def naive_scores(runtime: Runtime, plain: PreTrainedModel, policy: KVzip) -> Tensor:
    """From a plain pass over context and request for each chunk, ``[layers, K, n]``.

    The softmax over fewer keys is that over all of them, divided by the share that these have.
    """
    scores = torch.zeros(2, 2, TOKENS)
    material = Material(context=CONTEXT, encoder=runtime.encoder, vocabulary=1502)
    for part in policy.probe.parts(material):
        before = plain.config._attn_implementation
        plain.set_attn_implementation("eager")
        ids = torch.tensor([[*CONTEXT, *part.ids]])
        with torch.inference_mode():
            output = plain(ids, output_attentions=True, use_cache=False)
        plain.set_attn_implementation(before)
        chunk = list(range(part.first, part.last))
        seen = [*range(policy.sinks), *chunk, *range(TOKENS, ids.shape[1])]
        for layer, attention in enumerate(output.attentions):
            rows = attention[0, :, TOKENS:]
            shares = rows[..., chunk] / rows[..., seen].sum(dim=-1, keepdim=True)
            for head in range(4):
                for place, j in enumerate(chunk):
                    largest = max(shares[head, :, place].tolist())
                    scores[layer, head // 2, j] = max(float(scores[layer, head // 2, j]), largest)
    return scores


@pytest.mark.parametrize(
    "policy",
    [KVzip(), KVzip(chunk=9), KVzip(chunk=9, sinks=0), KVzip(chunk=1), KVzip(sinks=39)],
    ids=repr,
)
def test_scores_are_the_largest_attention_while_repeating(
    policy: KVzip, runtime: Runtime, plain_model: PreTrainedModel
) -> None:
    scores = score_tokens(policy, traced(runtime, policy), name="tested")
    due = naive_scores(runtime, plain_model, policy)
    torch.testing.assert_close(scores, due, rtol=2e-3, atol=1e-5)
    assert (scores[..., : policy.sinks] == 0).all()
    assert (scores[..., policy.sinks :] > 0).all()


def test_one_threshold_holds_over_the_whole_model(runtime: Runtime) -> None:
    policy = KVzip(chunk=9)
    trace = traced(runtime, policy)
    mask = keep_mask(policy, trace, 12, Protection(sinks=1, recents=2), name="kvzip")
    assert int(mask.sum()) == 12 * 4
    assert mask[..., :4].all()
    assert mask[..., -2:].all()
    scores = score_tokens(policy, trace, name="tested")[..., 4:-2]
    chosen = mask[..., 4:-2]
    assert float(scores[chosen].min()) > float(scores[~chosen].max())
    assert mask.sum(dim=-1).unique().numel() > 1


def test_a_context_of_sinks_alone_has_nothing_to_repeat(runtime: Runtime) -> None:
    policy = KVzip(sinks=TOKENS)
    assert (
        score_tokens(policy, traced(runtime, policy), name="tested").tolist()
        == [[[0.0] * TOKENS] * 2] * 2
    )


def test_needs_and_mistakes() -> None:
    assert KVzip().needs == frozenset({Repeat(chunk=2000, skip=4)})
    with pytest.raises(ValueError, match="chunk=0: expected 1 or more tokens"):
        KVzip(chunk=0)
    with pytest.raises(ValueError, match="sinks=-1: expected 0 or more tokens"):
        KVzip(sinks=-1)


@pytest.mark.parametrize("check", checks_for(KVzip()), ids=repr)
def test_it_conforms(check: Check) -> None:
    check.function(KVzip(), count=6)
