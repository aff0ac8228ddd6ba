from __future__ import annotations

import math
import random
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness import (
    Ends,
    Needs,
    Probe,
    Probed,
    Repeat,
    Trace,
    View,
    causal_attention,
    group_mean,
    probe_attention,
    window_attention,
)
from kvharness import trace as trace_module
from kvharness.trace import LayerTrace, generator

Rows = list[list[float]]
NOTHING = Needs()
EVERYTHING = Needs(queries=4, column_sums=True, future=True)
WORDS = ("0", "item", "policy")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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


@given(words=st.lists(st.text(max_size=5), min_size=1, max_size=4), other=st.text(max_size=5))
def test_a_generator_depends_on_its_words_alone(words: list[str], other: str) -> None:
    first = torch.rand(4, generator=generator(*words))
    torch.rand(1, generator=generator(other))
    random.random()
    assert torch.equal(first, torch.rand(4, generator=generator(*words)))
    assert not torch.equal(first, torch.rand(4, generator=generator(*words, other)))
    if other != words[-1]:
        assert not torch.equal(first, torch.rand(4, generator=generator(*words[:-1], other)))


def test_a_generator_ignores_and_spares_the_global_one() -> None:
    state = torch.get_rng_state()
    first = torch.rand(4, generator=generator("a"))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert torch.equal(first, torch.rand(4, generator=generator("a")))


def test_a_generator_is_the_same_in_every_process_and_release() -> None:
    # Python's own hash of a text is salted, so it may not be used.
    drawn = torch.randint(0, 1000, (4,), generator=generator("0", "i", "p"))
    assert drawn.tolist() == [112, 667, 198, 735]


def make_trace(tokens: int = 6, queries: int = 6) -> Trace:
    return Trace(
        layers=tuple(
            LayerTrace(
                keys=draw(2, tokens, 4, seed=layer),
                values=draw(2, tokens, 3, seed=layer + 10),
                scaling=0.5 + layer,
                queries=draw(4, queries, 4, seed=layer + 20),
                column_sums=draw(4, tokens, seed=layer + 30),
                future=draw(4, tokens, seed=layer + 40),
            )
            for layer in range(3)
        ),
        positions=torch.arange(tokens),
        needs=EVERYTHING,
        rng_words=WORDS,
    )


def same(view: View, name: str, expected: torch.Tensor) -> None:
    got = getattr(view, name)
    assert got is not None
    assert torch.equal(got, expected)


@pytest.mark.parametrize("queries", [0, 1, 4, 6, 50])
@pytest.mark.parametrize("column_sums", [False, True])
@pytest.mark.parametrize("future", [False, True])
def test_views_show_what_was_asked_for_and_nothing_else(
    *, queries: int, column_sums: bool, future: bool
) -> None:
    trace = make_trace()
    needs = Needs(queries=queries, column_sums=column_sums, future=future)
    views = trace.for_policy(needs, WORDS).views
    assert [view.layer for view in views] == [0, 1, 2]
    for view, layer in zip(views, trace.layers, strict=True):
        same(view, "keys", layer.keys)
        same(view, "values", layer.values)
        same(view, "positions", torch.arange(6))
        assert view.scaling == layer.scaling
        assert (view.tokens, view.kv_heads) == (6, 2)
        assert (view.queries is None) == (queries == 0)
        assert (view.column_sums is None) == (not column_sums)
        assert (view.future is None) == (not future)
        if view.queries is not None:
            assert layer.queries is not None
            assert torch.equal(view.queries, layer.queries[:, max(0, 6 - queries) :])
        if view.column_sums is not None:
            assert view.column_sums is layer.column_sums
        if view.future is not None:
            assert view.future is layer.future


def test_no_view_leaks_what_a_neighbour_asked_for() -> None:
    visible = {field.name for field in fields(View)}
    view = make_trace().for_policy(NOTHING, WORDS).views[0]
    hidden = {name for name in visible if getattr(view, name) is None}
    assert hidden == {
        "queries",
        "column_sums",
        "future",
        "similarity",
        "boundaries",
        "probes",
        "hidden_states",
    }


def test_each_layer_and_policy_has_its_own_numbers() -> None:
    trace = make_trace()
    views = [
        view
        for words in (WORDS, ("1", "item", "policy"), ("0", "other", "policy"), ("0", "item", "q"))
        for view in trace.for_policy(NOTHING, words).views
    ]
    drawn = {tuple(torch.rand(4, generator=view.rng).tolist()) for view in views}
    assert len(drawn) == len(views)


def test_looking_again_starts_the_numbers_again() -> None:
    trace = make_trace()
    first, again = (torch.rand(4, generator=trace.views[1].rng) for _ in range(2))
    assert torch.equal(first, again)


def test_the_trace_knows_its_shape() -> None:
    trace = make_trace()
    assert (trace.tokens, trace.kv_heads) == (6, 2)


def test_a_future_is_added_layer_by_layer() -> None:
    bare = make_trace()
    bare = replace(bare, layers=tuple(replace(layer, future=None) for layer in bare.layers))
    futures = [draw(4, 6, seed=50 + layer) for layer in range(3)]
    views = bare.with_future(futures).for_policy(Needs(future=True), WORDS).views
    for view, future in zip(views, futures, strict=True):
        same(view, "future", future)
    assert bare.layers[0].future is None
    with pytest.raises(ValueError, match="shorter"):
        bare.with_future(futures[:2])


@pytest.mark.parametrize("window", [1, 3, 6, 100])
def test_window_attention_is_that_of_the_last_queries(window: int) -> None:
    trace = make_trace().for_policy(Needs(queries=window), WORDS)
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
    with pytest.raises(ValueError, match=r"declare needs = Needs\(queries=...\)"):
        window_attention(view)


def some_needs() -> st.SearchStrategy[Needs]:
    probes = [Ends(prefix=1, suffix=2), Ends(prefix=1, suffix=2, offset=3), Repeat(chunk=4)]
    return st.builds(
        Needs,
        queries=st.integers(0, 9),
        column_sums=st.booleans(),
        future=st.booleans(),
        probes=st.frozensets(st.sampled_from(probes)),
    )


@given(one=some_needs(), two=some_needs())
def test_needs_unite(one: Needs, two: Needs) -> None:
    both = one.union(two)
    assert both == two.union(one)
    assert both == both.union(one) == one.union(both)
    assert both.queries == max(one.queries, two.queries)
    assert both.column_sums == (one.column_sums or two.column_sums)
    assert both.future == (one.future or two.future)
    assert both.probes == one.probes | two.probes


def with_probes(trace: Trace, *probes: Probe) -> Trace:
    """Each probe has two parts, of five tokens and of two."""

    def part(tokens: int, seed: int) -> Probed:
        queries, keys = draw(4, tokens, 4, seed=seed), draw(2, tokens, 4, seed=seed + 1)
        return Probed(queries=queries, keys=keys, first=0, last=6)

    def parts(seed: int) -> tuple[Probed, ...]:
        return part(5, seed), part(2, seed + 2)

    layers = (
        replace(layer, probes={p: parts(100 * index + 10 * k) for k, p in enumerate(probes)})
        for index, layer in enumerate(trace.layers)
    )
    return replace(trace, layers=tuple(layers))


@pytest.mark.parametrize("rows", [1, 2, 256])
@pytest.mark.parametrize("seen", [None, [0, 2, 3], []])
def test_probe_attention_is_over_the_context_and_the_probe_so_far(
    rows: int, seen: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "_ROWS", rows)
    probe = Ends(prefix=3, suffix=2)
    trace = with_probes(make_trace(), probe).for_policy(Needs(probes=frozenset({probe})), WORDS)
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


def test_a_policy_sees_the_probes_it_asks_for() -> None:
    mine, other = Ends(prefix=3, suffix=2), Repeat(chunk=4)
    trace = with_probes(make_trace(), mine, other)
    (view, *_) = trace.for_policy(Needs(probes=frozenset({mine})), WORDS).views
    assert view.probes is not None
    assert list(view.probes) == [mine]
    assert view.probed(Ends(prefix=3, suffix=2)) is view.probes[mine]
    for needs in (NOTHING, Needs(probes=frozenset({mine}))):
        (view, *_) = trace.for_policy(needs, WORDS).views
        with pytest.raises(ValueError, match=r"no Repeat\(.*declare needs = Needs\(probes="):
            view.probed(other)


def test_every_tensor_of_a_layer_is_named() -> None:
    (layer, *_) = with_probes(make_trace(), Repeat(chunk=4)).layers
    named = dict(layer.tensors())
    assert list(named)[:5] == ["keys", "values", "queries", "column_sums", "future"]
    # Two parts have the same names.
    assert len(list(layer.tensors())) == 9
    assert {id(part.queries) for parts in (layer.probes or {}).values() for part in parts} < {
        id(tensor) for _, tensor in layer.tensors()
    }
    moved = layer.moved("meta")
    assert {tensor.device.type for _, tensor in moved.tensors()} == {"meta"}
    assert (moved.scaling, len(list(moved.tensors()))) == (layer.scaling, 9)
