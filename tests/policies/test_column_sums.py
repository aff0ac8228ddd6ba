from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness import ColumnSums, Policy, Protection
from kvharness.engine.select import score_tokens
from kvharness_policies.h2o import H2O
from kvharness_policies.prefill_attention import PrefillAttention

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness.policy.trace import LayerTrace
    from tests.policies.conftest import Keep, MakeTrace, Rows


BOTH = pytest.mark.parametrize("policy", [PrefillAttention(), H2O()], ids=["mean", "h2o"])


def naive_scores(maps: list[Rows], *, mean: bool) -> list[float]:
    """Scores of one KV head from the attention maps of its query heads."""
    tokens = len(maps[0])
    scores = []
    for j in range(tokens):
        total = sum(rows[i][j] for rows in maps for i in range(j, tokens))
        scores.append(total / len(maps) / ((tokens - j) if mean else 1))
    return scores


@BOTH
def test_scores_are_sound(policy: Policy, check_scores: Callable[[Policy], None]) -> None:
    check_scores(policy)
    assert policy.needs == frozenset({ColumnSums()})


@BOTH
@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_scores_equal_the_naive_ones(
    policy: Policy,
    tokens: int,
    make_trace: MakeTrace,
    naive_attention: Callable[[LayerTrace, int], Rows],
    group: Callable[[int], range],
) -> None:
    trace = make_trace(tokens=tokens)
    scores = score_tokens(policy, trace, name="tested")
    for index, layer in enumerate(trace.layers):
        for k in range(2):
            maps = [naive_attention(layer, h) for h in group(k)]
            expected = naive_scores(maps, mean=isinstance(policy, PrefillAttention))
            torch.testing.assert_close(scores[index, k], torch.tensor(expected))


@BOTH
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_smaller_budget_keeps_a_subset(
    policy: Policy, make_trace: MakeTrace, keep: Keep, data: st.DataObject
) -> None:
    assert policy.capabilities.nested
    tokens = data.draw(st.integers(1, 10), "tokens")
    levels = st.lists(st.integers(0, 3), min_size=tokens, max_size=tokens)
    sums = torch.tensor(data.draw(st.lists(levels, min_size=4, max_size=4), "sums")).float()
    protection = Protection(
        sinks=data.draw(st.integers(0, tokens), "sinks"),
        recents=data.draw(st.integers(0, tokens), "recents"),
    )
    trace = make_trace(tokens=tokens, layers=1)
    trace = replace(trace, layers=(replace(trace.layers[0], observed={ColumnSums(): sums}),))
    budgets = range(max(1, protection.sinks), tokens + 1)
    kept = [keep(policy, trace, budget, protection)[0] for budget in budgets]
    for small, large in pairwise(kept):
        assert all(set(a) < set(b) for a, b in zip(small, large, strict=True))


@BOTH
def test_without_column_sums_it_says_what_to_declare(policy: Policy, make_trace: MakeTrace) -> None:
    view = replace(make_trace().views[0], observed={})
    with pytest.raises(ValueError, match=r"declare needs = frozenset\({ColumnSums\(\)}\)"):
        policy.score(view)
