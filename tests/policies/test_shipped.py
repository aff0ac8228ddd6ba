"""The weights that come with the policies, and the figures about them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kvharness.errors import TrainingProblem
from kvharness.model.loaded import Runtime
from kvharness.policy.interface import LoadedModel
from kvharness.pretrained.find import ModelSource, find_model
from kvharness.training.checkpoint import all_checkpoints, find_checkpoint
from kvharness_policies.lkv.policy import LKV
from kvharness_policies.sip.policy import SHIPPED, SIP

NAME = "smollm2-135m"
DIGEST = "b179c9523d0e6a0f"
#: What belongs to the embedded model, known without loading it.
SOURCE = ModelSource(name=NAME, path=Path(), digest=DIGEST)
SIP_SEEDS = range(5)


@pytest.mark.parametrize("seed", SIP_SEEDS)
def test_every_seed_of_the_default_run_has_weights_of_its_own(seed: int) -> None:
    found = SIP().checkpoint(SOURCE, seed)
    others = [SIP().checkpoint(SOURCE, other) for other in SIP_SEEDS if other != seed]
    assert found not in others


def test_lkv_has_weights() -> None:
    assert len(LKV().checkpoint(SOURCE, 0)) == 16


def test_a_seed_without_weights_is_refused() -> None:
    with pytest.raises(TrainingProblem, match=r"there are seeds 0, 1, 2, 3, 4; train them with"):
        SIP().checkpoint(SOURCE, 5)


def test_the_published_size_has_one_seed_and_learned_more() -> None:
    ends = {}
    for policy in (SIP(), SIP(size="1.7m"), SIP(features="position")):
        assert len(policy.checkpoint(SOURCE, 0)) == 16
    for each in all_checkpoints(SHIPPED, policy="sip", source=SOURCE):
        if each.manifest.seed == 0:
            ends[each.manifest.variant] = each.manifest.curves[-1]["held_out"]
    assert ends["1.7m"] < ends["small"] - 0.05 < ends["small-position"] - 0.14
    with pytest.raises(TrainingProblem, match=r"there are seeds 0; .* sip --size 1.7m --kv-model"):
        SIP(size="1.7m").checkpoint(SOURCE, 1)


def test_manifests_say_where_weights_come_from() -> None:
    for policy in ("sip", "lkv"):
        for each in all_checkpoints(SHIPPED, policy=policy, source=SOURCE):
            manifest = each.manifest
            assert (manifest.policy, manifest.model_digest) == (policy, DIGEST)
            assert manifest.sources == ("prose_sotu", "moby_dick.txt")
            assert manifest.curves[-1]["held_out"] < manifest.curves[0]["held_out"]
            assert manifest.seconds > 0


def test_seeds_of_sip_end_close_together() -> None:
    ends = [
        find_checkpoint(
            [SHIPPED], policy="sip", variant="small", source=SOURCE, seed=seed
        ).manifest.curves[-1]["held_out"]
        for seed in SIP_SEEDS
    ]
    assert max(ends) - min(ends) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("policy", [SIP(), SIP(size="1.7m"), SIP(features="position"), LKV()])
def test_shipped_weights_fit_the_embedded_model(policy: SIP | LKV) -> None:
    source = find_model(NAME)
    assert source.digest == DIGEST
    runtime = Runtime.load(source, device="cpu")
    ready = policy.ready(LoadedModel(source=source, module=runtime.model), 0)
    assert isinstance(ready.network, torch.nn.Module)
