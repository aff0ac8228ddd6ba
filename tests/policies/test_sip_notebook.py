"""The notebook's network, and a keep set for the whole model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness.cli.main import main
from kvharness.contract import Protection
from kvharness.engine.select import keep_mask, score_tokens
from kvharness.model.context_reading import prefill
from kvharness.policy.interface import LoadedModel
from kvharness.policy.trace import Trace
from kvharness.pretrained.find import find_model
from kvharness_policies.ada import Ada
from kvharness_policies.sip.network import new_network
from kvharness_policies.sip.notebook import STEPS, NotebookScorer
from kvharness_policies.sip.policy import SIP, LearnedSIP
from kvharness_policies.sip.scorer import NOTEBOOK, Heads, Scorer, Shape

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.model.loaded import Runtime

TOKENS = 24


def notebook(kv_heads: int = 2, head_size: int = 16) -> NotebookScorer:
    shape = Shape(layers=3, kv_heads=kv_heads, head_size=head_size, mode=NOTEBOOK)
    torch.manual_seed(0)
    network = new_network(shape)
    assert isinstance(network, NotebookScorer)
    return network.eval().requires_grad_(False)


def heads(seed: int = 0) -> Heads:
    rng = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, 2, TOKENS, 16, generator=rng)
    index = torch.arange(2)
    return Heads(keys=keys, values=values, prefill=None, layer=torch.zeros(2).long(), head=index)


def test_the_count_of_weights_is_that_of_the_publication() -> None:
    """Of TinyLlama: four KV heads of 64."""
    weights = [each.numel() for each in notebook(4, 64).parameters()]
    assert sum(weights) == 1_683_719
    assert isinstance(new_network(Shape(layers=3, kv_heads=4, head_size=64)), Scorer)


def test_importance_is_the_mean_over_steps_by_confidence() -> None:
    found = notebook()(heads())
    assert found.important.shape == found.confidence.shape == (2, TOKENS, STEPS)
    for head in range(2):
        for token in range(TOKENS):
            certain = found.confidence[head, token].sigmoid().exp()
            expected = (certain * found.important[head, token].sigmoid()).sum() / certain.sum()
            assert float(found.score[head, token]) == pytest.approx(float(expected), rel=1e-5)


def test_position_and_step_count() -> None:
    network, seen = notebook(), heads()
    same = Heads(
        keys=seen.keys[:, :1].expand(-1, TOKENS, -1),
        values=seen.values[:, :1].expand(-1, TOKENS, -1),
        prefill=None,
        layer=seen.layer,
        head=seen.head,
    )
    found = network(same)
    assert found.important[0, :, 0].unique().numel() > TOKENS // 2
    assert found.important[0, 0].unique().numel() == STEPS


def test_one_set_of_tokens_for_the_whole_model(
    runtime: Runtime, tiny_model: Path, book: Path, tmp_path: Path
) -> None:
    source = ("--text", str(book), "--kv-model", str(tiny_model), "--out", str(tmp_path))
    sizes = ("--mode=notebook", "--windows=40", "--context=80", "--steps=2", "--kv-seeds=1")
    assert main(["train", "sip", *source, *sizes]) == 0
    assert [each.name for each in tmp_path.rglob("*.safetensors") if "window" not in each.name] == [
        "sip-notebook-s0.safetensors"
    ]
    source_model = find_model(str(tiny_model))
    model = LoadedModel(source=source_model, module=runtime.model)
    policy = SIP(weights=str(tmp_path), mode=NOTEBOOK).ready(model, 0)
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 1500, (TOKENS,), generator=rng).tolist()
    context, _ = prefill(runtime, ids)
    layers = tuple(context.layers.values())
    trace = Trace(layers=layers, positions=torch.arange(TOKENS))
    scores = score_tokens(policy, trace, name="sip")
    own = LearnedSIP.score(policy, trace.views[0])
    assert torch.allclose(scores[0, 1], own.mean(dim=0))
    assert not torch.equal(own[0], own[1])
    best = set(scores[0, 0].topk(9).indices.tolist())
    kept = keep_mask(policy, trace, 9, Protection(sinks=0, recents=0), name="sip")
    assert all(set(row.nonzero()[:, 0].tolist()) == best for row in kept.flatten(0, 1))
    even = keep_mask(Ada(policy), trace, 9, Protection(sinks=0, recents=0), name="ada")
    assert torch.equal(even, kept), "no head has better scores than another"


def test_other_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="mode='global': expected per-head or notebook"):
        SIP(mode="global")
