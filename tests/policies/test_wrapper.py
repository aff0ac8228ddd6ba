from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Capabilities, LoadedModel, Needs, Policy, Positions, Protection
from kvharness.discovery.parameters import parameters_text
from kvharness.errors import TrainingProblem
from kvharness.model.prefill import prefill
from kvharness_policies.ada import Ada
from kvharness_policies.caote import CAOTE
from kvharness_policies.dapq import DapQ
from kvharness_policies.floor import Floor
from kvharness_policies.full import Full
from kvharness_policies.h2o import H2O
from kvharness_policies.lkv.policy import LKV
from kvharness_policies.oracle import Oracle
from kvharness_policies.random import Random
from kvharness_policies.snapkv import SnapKV
from kvharness_policies.streaming_llm import StreamingLLM
from kvharness_policies.wrapper import Wrapper

if TYPE_CHECKING:
    from kvharness import Trace
    from kvharness.model.loaded import Runtime
    from tests.policies.conftest import Keep, MakeTrace


@dataclass(frozen=True)
class Knowing(Random):
    """Random, and a copy of it says that it knows the context."""

    known: int = 0

    def informed(self, trace: Trace) -> Policy:
        return Knowing(known=trace.tokens)


@pytest.mark.parametrize("inner", [SnapKV(window=2), H2O(), Random(), StreamingLLM()])
def test_a_bare_wrapper_changes_nothing(inner: Policy, make_trace: MakeTrace, keep: Keep) -> None:
    outer, trace = Wrapper(inner), make_trace(tokens=12)
    protection = Protection(sinks=1, recents=1)
    assert keep(outer, trace, 5, protection) == keep(inner, trace, 5, protection)
    assert (outer.needs, outer.positions) == (inner.needs, inner.positions)
    assert outer.capabilities == replace(inner.capabilities, decodes=False, blocks=False)
    assert outer.protect(12, 5) == inner.protect(12, 5)


def test_capabilities_are_those_of_both() -> None:
    assert Ada(Random()).capabilities == Capabilities(
        deterministic=False, nested=False, head_wise=True
    )
    assert Wrapper(Ada(SnapKV())).capabilities == Ada(SnapKV()).capabilities
    assert Wrapper(StreamingLLM()).positions is Positions.COMPACT


@pytest.mark.parametrize("anchor", [Full(), Floor()])
def test_what_ranks_nothing_cannot_be_wrapped(anchor: Policy) -> None:
    with pytest.raises(ValueError, match="ranks no tokens"):
        Ada(anchor)
    assert Ada(Oracle()).needs.future


def test_a_wrapper_says_itself_whether_it_evicts_on_the_way() -> None:
    assert CAOTE(H2O()).capabilities.blocks
    assert not CAOTE(H2O()).capabilities.decodes
    assert not CAOTE(Ada(H2O())).capabilities.blocks, "heads have budgets of their own"
    assert not CAOTE(StreamingLLM()).capabilities.blocks, "positions are compact"
    assert not CAOTE(DapQ()).capabilities.blocks, "its probe needs a whole context"
    assert not Ada(Random()).capabilities.decodes


def test_what_is_learned_of_a_context_stays_off_the_wrapper(make_trace: MakeTrace) -> None:
    wrapper = Ada(Knowing(), alpha=0.3)
    informed = wrapper.informed(make_trace(tokens=7))
    assert isinstance(informed, Ada)
    assert (informed.scorer, informed.alpha) == (Knowing(known=7), 0.3)
    assert wrapper.scorer == Knowing()
    plain = Ada(SnapKV())
    assert plain.informed(make_trace()) is plain


def test_the_wrapped_policy_is_prepared_and_names_its_weights(runtime: Runtime) -> None:
    model = LoadedModel(source=runtime.source, module=runtime.model)
    wrapper = Ada(LKV())
    with pytest.raises(TrainingProblem):
        wrapper.checkpoint(model.source, 0)
    free = wrapper.untrained()
    assert free.checkpoint(model.source, 0) == "random"
    free.prepare(model, 0)
    prefilled, _ = prefill(runtime, range(2, 30), Needs())
    keys, values = (
        torch.stack([getattr(layer, name) for layer in prefilled.layers.values()])
        for name in ("keys", "values")
    )
    assert isinstance(free, Ada)
    assert free.scorer._network.scores(keys, values).shape == (2, 2, 28)  # type: ignore[attr-defined]


def test_only_parameters_enter_a_key_and_copies_keep_what_follows_from_them() -> None:
    policy = Ada(SnapKV(window=5), alpha=0.5)
    assert parameters_text(policy) == (
        '{"alpha": 0.5, "scorer": {"SnapKV": {"kernel": 7, "pooling": "max", "window": 5}}}'
    )
    for other in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy)):  # noqa: S301
        assert other == policy
        assert other.needs == Needs(queries=5)
        assert other.capabilities.head_wise
