from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import (
    Capabilities,
    ColumnSums,
    LoadedModel,
    Policy,
    Positions,
    Protection,
    Queries,
    Wrapper,
)
from kvharness.discovery import registry
from kvharness.discovery.parameters import parameters_text
from kvharness.discovery.spec import PolicySpec
from kvharness.engine.select import keep_mask
from kvharness.errors import ParameterProblem, TrainingProblem
from kvharness.testing import parametrize_with_checks
from kvharness.testing.case import Case
from kvharness.testing.tensors import Shape
from kvharness_policies.ada import Ada
from kvharness_policies.caote import CAOTE
from kvharness_policies.coupled import Coupled
from kvharness_policies.criticalkv import CriticalKV
from kvharness_policies.dapq import DapQ
from kvharness_policies.h2o import H2O
from kvharness_policies.lkv.policy import LKV, LearnedLKV
from kvharness_policies.oracle import Oracle
from kvharness_policies.random import Random
from kvharness_policies.random_tied import RandomTied
from kvharness_policies.snapkv import SnapKV
from kvharness_policies.streaming_llm import StreamingLLM

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kvharness import Choice, View
    from kvharness.model.loaded import Runtime
    from kvharness.testing import Check

SHAPE = Shape(layers=2, heads=4, kv_heads=2, tokens=24, size=8)
CASE = Case(shape=SHAPE, budget=9, sinks=1, recents=1)


@dataclass(frozen=True)
class Jittered(Wrapper):
    """A stranger's: its scorer's scores, blurred."""

    own_capabilities = Capabilities(deterministic=False, nested=False)

    amount: float = 0.5

    def score(self, view: View) -> Tensor:
        scores = self.scorer.score(view)
        return scores + self.amount * torch.rand(scores.shape, generator=view.rng)


@dataclass(frozen=True)
class Reversed(Wrapper):
    """A stranger's: it selects for itself, and needs a number that its scorer does not."""

    window: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect_plain_selection()

    @property
    def own_needs(self) -> frozenset[Queries]:
        return frozenset({Queries(self.window)})

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        assert choice.trace.views[0].queries is not None
        return Policy.select(self, replace(choice, scores=-choice.scores), budgets)


def kept(policy: Policy) -> Tensor:
    return keep_mask(policy, CASE.trace(policy.needs), CASE.budget, CASE.protection, name="tested")


@pytest.mark.parametrize("inner", [SnapKV(window=2), H2O(), Random(), StreamingLLM(), RandomTied()])
def test_a_bare_wrapper_changes_nothing(inner: Policy) -> None:
    outer = Wrapper(inner)
    assert torch.equal(kept(outer), kept(inner))
    assert (outer.needs, outer.positions) == (inner.needs, inner.positions)
    assert outer.capabilities == replace(inner.capabilities, decodes=False, blocks=False)
    assert outer.protect(12, 5) == inner.protect(12, 5)


@parametrize_with_checks(
    [Jittered(H2O()), Reversed(SnapKV(window=2)), Jittered(Ada(SnapKV(window=2)))]
)
def test_wrappers_of_strangers_keep_the_rules(policy: Policy, check: Check) -> None:
    check.function(policy, count=10)


def test_needs_and_capabilities_are_those_of_both() -> None:
    assert Ada(Random()).capabilities == Capabilities(
        deterministic=False, nested=False, head_wise=True
    )
    assert Wrapper(Ada(SnapKV())).capabilities == Ada(SnapKV()).capabilities
    assert Jittered(H2O()).capabilities == Capabilities(deterministic=False, nested=False)
    assert Wrapper(StreamingLLM()).positions is Positions.COMPACT
    assert Reversed(H2O(), window=5).needs == frozenset({Queries(5), ColumnSums()})
    with pytest.raises(ValueError, match="compact positions need equal budgets in all heads"):
        Ada(StreamingLLM())


@pytest.mark.parametrize("anchor", ["full", "floor"])
def test_what_ranks_nothing_cannot_be_wrapped(anchor: str) -> None:
    (spec,) = PolicySpec.parse_list(f"ada({anchor})")
    with pytest.raises(ParameterProblem, match=f"{anchor} ranks no tokens, .*; wrap random"):
        registry.load(spec, registry.installed())
    assert Ada(Oracle()).needs == Oracle().needs


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reversed(CriticalKV(H2O())),
        lambda: Reversed(Ada(RandomTied())),
        lambda: Coupled(Reversed(H2O())),
    ],
)
def test_two_that_choose_themselves_are_refused(make: Callable[[], Policy]) -> None:
    with pytest.raises(ValueError, match=r"\w+ and \w+ both choose by more than scores"):
        make()


def test_a_wrapper_says_itself_whether_it_evicts_on_the_way() -> None:
    assert CAOTE(H2O()).capabilities.blocks
    assert not CAOTE(H2O()).capabilities.decodes
    assert not CAOTE(Ada(H2O())).capabilities.blocks, "heads have budgets of their own"
    assert not CAOTE(StreamingLLM()).capabilities.blocks, "positions are compact"
    assert not CAOTE(DapQ()).capabilities.blocks, "its probe needs a whole context"
    assert not Ada(Random()).capabilities.decodes


def test_whose_scores_are_handed_on() -> None:
    assert Ada(Coupled(H2O())).scored_by == H2O()
    assert Ada(Jittered(H2O())).scored_by == Jittered(H2O())


def test_the_wrapped_policy_gets_ready_and_names_its_weights(runtime: Runtime) -> None:
    model = LoadedModel(source=runtime.source, module=runtime.model)
    wrapper = Ada(LKV(), alpha=0.3)
    with pytest.raises(TrainingProblem):
        wrapper.checkpoint(model.source, 0)
    free = wrapper.untrained()
    assert free.checkpoint(model.source, 0) == "random"
    ready = free.ready(model, 0)
    assert isinstance(ready, Ada)
    assert isinstance(ready.scorer, LearnedLKV)
    assert ready.alpha == 0.3
    assert wrapper == Ada(LKV(), alpha=0.3)
    plain = Ada(SnapKV())
    assert plain.ready(model, 0) is plain


def test_only_parameters_enter_a_key_and_copies_keep_what_follows_from_them() -> None:
    policy = Ada(SnapKV(window=5), alpha=0.5)
    assert parameters_text(policy) == (
        '{"alpha": 0.5, "scorer": {"SnapKV": {"kernel": 7, "pooling": "max", "window": 5}}}'
    )
    for other in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy)):  # noqa: S301
        assert other == policy
        assert other.needs == frozenset({Queries(5)})
        assert other.capabilities.head_wise
    assert policy.protect(40, 20) == Protection(sinks=0, recents=5)
