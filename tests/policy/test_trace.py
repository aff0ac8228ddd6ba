from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from kvharness import Ends, Needs, Probe, Probed, Repeat, Trace, View
from kvharness.policy.trace import LayerTrace

NOTHING = Needs()
EVERYTHING = Needs(queries=4, column_sums=True, future=True)
WORDS = ("0", "item", "policy")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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
