from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness import Policy, Positions, Protection
from kvharness_policies.position import Position
from kvharness_policies.streaming_llm import StreamingLLM

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.policies.conftest import Keep, MakeTrace


def first_and_last(tokens: int, budget: int, sinks: int) -> list[int]:
    head = min(sinks, budget)
    return [*range(head), *range(tokens - (budget - head), tokens)]


@pytest.mark.parametrize("policy", [Position(), StreamingLLM(), Position(sinks=0)])
def test_scores_are_sound(policy: Policy, check_scores: Callable[[Policy], None]) -> None:
    check_scores(policy)


def test_where_kept_tokens_sit() -> None:
    assert Position().positions is Positions.ORIGINAL
    assert StreamingLLM().positions is Positions.COMPACT


@pytest.mark.parametrize("kind", [Position, StreamingLLM])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_keeps_the_first_and_the_last_whatever_the_protection(
    kind: type[Position], make_trace: MakeTrace, keep: Keep, data: st.DataObject
) -> None:
    tokens = data.draw(st.integers(1, 12), "tokens")
    budget = data.draw(st.integers(1, tokens), "budget")
    sinks = data.draw(st.integers(0, 5), "sinks")
    protection = Protection(
        sinks=data.draw(st.integers(0, min(sinks, budget)), "contract sinks"),
        recents=data.draw(st.integers(0, max(0, budget - sinks)), "contract recents"),
    )
    kept = keep(kind(sinks=sinks), make_trace(tokens=tokens, layers=1), budget, protection)
    assert kept == [[first_and_last(tokens, budget, sinks)] * 2]


def test_default_is_four_sinks(make_trace: MakeTrace, keep: Keep) -> None:
    kept = keep(StreamingLLM(), make_trace(tokens=12), 7)
    assert kept == [[[0, 1, 2, 3, 9, 10, 11]] * 2] * 2


def test_negative_sinks_are_refused() -> None:
    with pytest.raises(ValueError, match="sinks=-1: expected 0 or more"):
        StreamingLLM(sinks=-1)
