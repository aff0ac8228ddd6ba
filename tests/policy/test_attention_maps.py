from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness import Ends, Queries, causal_attention, group_mean, probe_attention, window_attention
from tests.policy.test_trace import NOTHING, WORDS, draw, make_trace, with_probes

Rows = list[list[float]]


def naive_attention(queries: Rows, keys: Rows, scaling: float) -> Rows:
    """One head: the last ``len(queries)`` tokens, each attending to itself and what is before."""
    tokens, window = len(keys), len(queries)
    rows = []
    for i, query in enumerate(queries):
        sees = tokens - window + i + 1
        products = [
            scaling * math.fsum(a * b for a, b in zip(query, key, strict=True))
            for key in keys[:sees]
        ]
        weights = [math.exp(product - max(products)) for product in products]
        total = math.fsum(weights)
        rows.append([weight / total for weight in weights] + [0.0] * (tokens - sees))
    return rows


@given(
    tokens=st.integers(1, 12),
    window=st.integers(1, 12),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    scaling=st.floats(0.0, 2.0),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_causal_attention_equals_loops(
    *,
    tokens: int,
    window: int,
    kv_heads: int,
    group: int,
    scaling: float,
    dtype: torch.dtype,
    seed: int,
) -> None:
    window = min(window, tokens)
    queries = draw(kv_heads * group, window, 4, seed=seed).to(dtype)
    keys = draw(kv_heads, tokens, 4, seed=seed + 1).to(dtype)
    before = queries.clone(), keys.clone()
    got = causal_attention(queries, keys, scaling)
    expected = [
        naive_attention(queries[h].tolist(), keys[h // group].tolist(), scaling)
        for h in range(kv_heads * group)
    ]
    torch.testing.assert_close(got, torch.tensor(expected))
    assert torch.equal(queries, before[0])
    assert torch.equal(keys, before[1])


def test_causal_attention_of_huge_products_stays_finite() -> None:
    rows = causal_attention(draw(2, 3, 4) * 1e4, draw(2, 3, 4) * 1e4, 1.0)
    assert rows.isfinite().all()
    torch.testing.assert_close(rows.sum(dim=-1), torch.ones(2, 3))


@given(kv_heads=st.integers(1, 3), group=st.integers(1, 4), seed=st.integers(0, 9))
def test_group_mean_equals_loops(kv_heads: int, group: int, seed: int) -> None:
    scores = draw(kv_heads * group, 5, seed=seed)
    rows = scores.tolist()
    expected = [
        [sum(rows[k * group + g][j] for g in range(group)) / group for j in range(5)]
        for k in range(kv_heads)
    ]
    torch.testing.assert_close(group_mean(scores, kv_heads), torch.tensor(expected))


@pytest.mark.parametrize("window", [1, 3, 6, 100])
def test_window_attention_is_that_of_the_last_queries(window: int) -> None:
    trace = make_trace().for_policy(frozenset({Queries(window)}), WORDS)
    for view in trace.views:
        seen = min(window, 6)
        assert view.queries is not None
        expected = [
            naive_attention(view.queries[h].tolist(), view.keys[h // 2].tolist(), view.scaling)
            for h in range(4)
        ]
        got = window_attention(view)
        assert got.shape == (4, seen, 6)
        torch.testing.assert_close(got, torch.tensor(expected))


def test_window_attention_without_queries_says_what_to_declare() -> None:
    view = make_trace().for_policy(NOTHING, WORDS).views[0]
    with pytest.raises(ValueError, match=r"declare needs = frozenset\({Queries\(count=...\)}\)"):
        window_attention(view)


@pytest.mark.parametrize("rows", [1, 2, 256])
@pytest.mark.parametrize("seen", [None, [0, 2, 3], []])
def test_probe_attention_is_over_the_context_and_the_probe_so_far(
    rows: int, seen: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvharness.policy.attention_maps._ROWS", rows)
    probe = Ends(prefix=3, suffix=2)
    trace = with_probes(make_trace(), probe).for_policy(frozenset({probe}), WORDS)
    for view in trace.views:
        for part in view.probed(probe):
            index = None if seen is None else torch.tensor(seen, dtype=torch.int64)
            blocks = list(probe_attention(view, part, seen=index))
            places = list(range(6)) if seen is None else seen
            assert all(block.shape[1] <= rows for block in blocks)
            expected = []
            for head in range(4):
                mine = view.keys[head // 2].tolist()
                keys = [mine[j] for j in places] + part.keys[head // 2].tolist()
                due = naive_attention(part.queries[head].tolist(), keys, view.scaling)
                expected.append([row[: len(places)] for row in due])
            torch.testing.assert_close(torch.cat(blocks, dim=1), torch.tensor(expected))
