"""The growing cache, its machine, and policies that get ready for a model."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from kvharness import Policy
from kvharness.testing import (
    CHECKS,
    Check,
    Mistake,
    check_exact_budget,
    left_out,
    run_session_machine,
)
from kvharness.testing.case import Case
from kvharness.testing.model import MODEL_SHAPE
from kvharness.testing.session import Session
from kvharness.testing.strategies import contracts, dtypes, sessions, traces
from kvharness_policies.position import Position
from kvharness_policies.snapkv import SnapKV
from kvharness_policies.streaming_llm import StreamingLLM
from tests.testing.broken.engine import IndexesByPosition
from tests.testing.broken.interface import Zeros

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import LoadedModel, Trace, View
    from kvharness.contract import Contract
    from kvharness.testing.strategies import Step

HALF = Fraction(1, 2)


def test_a_session_keeps_sinks_recents_and_the_best() -> None:
    session = Session(Position(sinks=2))
    session.append(12)
    session.compress(HALF)
    assert session.positions == [0, 1, 8, 9, 10, 11]
    session.append(3)
    session.compress(Fraction(5, 9))
    assert session.positions == [0, 1, 12, 13, 14]
    session.read()
    session.reset()
    assert session.positions == []


def test_more_tokens_than_fit_behind_a_context() -> None:
    session = Session(Zeros())
    for _ in range(30):
        session.append(8)
    session.read()
    assert session.positions == list(range(240))


@pytest.mark.parametrize("policy", [SnapKV(window=4), StreamingLLM()], ids=repr)
def test_the_machine_passes_sound_policies(policy: Policy) -> None:
    run_session_machine(policy, count=25)


def test_the_machine_finds_the_shortest_way_to_break() -> None:
    with pytest.raises(Mistake, match="compression 2 fails: IndexError") as caught:
        run_session_machine(IndexesByPosition())
    assert caught.value.told().count("state.compress(") == 2


@given(steps=sessions())
def test_sessions_begin_with_a_compressed_prompt(steps: list[Step]) -> None:
    session = Session(Zeros())
    for step in steps[:2]:
        session.take(step)
    assert session.positions == [0, 1, 2, 9, 10, 11]


@given(trace=traces(), contract=contracts(), dtype=dtypes())
def test_strategies_draw_what_they_say(trace: Trace, contract: Contract, dtype: str) -> None:
    assert 1 <= contract.context <= 48
    assert trace.tokens == trace.layers[0].keys.shape[1] == trace.layers[0].values.shape[1]
    assert dtype in {"float32", "bfloat16", "float16"}


class Learning(Policy):
    """Has no scores of its own."""

    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del seed
        (first, *_) = model.module.parameters()
        return Learned(first[0, : MODEL_SHAPE.size].detach().clone())


@dataclass(frozen=True)
class Learned(Policy):
    """Knows the model that it scores for, and no other."""

    weight: Tensor

    def score(self, view: View) -> Tensor:
        assert view.keys.shape[0] == MODEL_SHAPE.kv_heads
        return view.keys.float() @ self.weight


@pytest.mark.parametrize("check", CHECKS, ids=repr)
def test_a_policy_that_gets_ready_is_checked_on_what_fits_the_model(check: Check) -> None:
    if check.name in left_out(Learning()):
        assert left_out(Learning())[check.name] in {
            "it gets ready for a model, and the session has a layer of its own",
            "it is declared deterministic",
            "it needs nothing of query heads",
            "it needs no column sums",
        }
    else:
        check.function(Learning(), count=5)


def test_scoring_before_being_ready_says_what_is_missing() -> None:
    with pytest.raises(
        NotImplementedError, match=r"score\(view\) in the policy that ready\(model, seed\) returns"
    ):
        Learning().score(Case(shape=MODEL_SHAPE, budget=1).trace(frozenset()).views[0])


class Unready(Zeros):
    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del model, seed
        raise FileNotFoundError("no checkpoint")


def test_a_policy_that_cannot_get_ready_says_why() -> None:
    with pytest.raises(Mistake, match=r"ready\(model, seed=0\) raised FileNotFoundError"):
        check_exact_budget(Unready())
