from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvharness import Protection
from kvharness.engine.select import score_tokens
from kvharness_policies.prefill_attention import PrefillAttention

if TYPE_CHECKING:
    from tests.policies.conftest import Keep, MakeTrace, NaiveKept


@pytest.mark.parametrize("budget", [3, 5, 8, 12])
def test_prefill_attention_keeps_the_best_beside_the_protected(
    budget: int, make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    trace = make_trace(tokens=12)
    scores = score_tokens(PrefillAttention(), trace, name="tested").tolist()
    kept = keep(PrefillAttention(), trace, budget, Protection(sinks=1, recents=2))
    assert kept == [
        [naive_kept(head, budget, sinks=1, recents=2) for head in layer] for layer in scores
    ]
