from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pytest
import torch

from kvharness import (
    ColumnSums,
    Ends,
    Future,
    HiddenStates,
    Observation,
    Observations,
    Probe,
    Probed,
    Queries,
    Reading,
    Repeat,
    Trace,
    View,
)
from kvharness.policy.trace import LayerTrace

NOTHING: Observations = frozenset()
WORDS = ("0", "item", "policy")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def queries_of(whole: torch.Tensor) -> dict[Observation[Any], torch.Tensor]:
    return {Queries(count): whole[:, -count:] for count in (1, 3, 4, 6, 50, 100)}


def make_trace(tokens: int = 6) -> Trace:
    return Trace(
        layers=tuple(
            LayerTrace(
                keys=draw(2, tokens, 4, seed=layer),
                values=draw(2, tokens, 3, seed=layer + 10),
                scaling=0.5 + layer,
                observed={
                    **queries_of(draw(4, tokens, 4, seed=layer + 20)),
                    ColumnSums(): draw(4, tokens, seed=layer + 30),
                    Future(): draw(4, tokens, seed=layer + 40),
                },
            )
            for layer in range(3)
        ),
        positions=torch.arange(tokens),
        rng_words=WORDS,
    )


def same(view: View, name: str, expected: torch.Tensor) -> None:
    got = getattr(view, name)
    assert got is not None
    assert torch.equal(got, expected)


SOME: dict[str, Observation[Any]] = {
    "queries": Queries(4),
    "column_sums": ColumnSums(),
    "future": Future(),
}


@pytest.mark.parametrize("names", [names for n in range(4) for names in combinations(SOME, n)])
def test_views_show_what_was_asked_for_and_nothing_else(names: tuple[str, ...]) -> None:
    trace = make_trace()
    views = trace.for_policy(frozenset(SOME[name] for name in names), WORDS).views
    assert [view.layer for view in views] == [0, 1, 2]
    for view, layer in zip(views, trace.layers, strict=True):
        same(view, "keys", layer.keys)
        same(view, "values", layer.values)
        same(view, "positions", torch.arange(6))
        assert view.scaling == layer.scaling
        assert (view.tokens, view.kv_heads) == (6, 2)
        for name, observation in SOME.items():
            if name in names:
                assert getattr(view, name) is view[observation] is layer.observed[observation]
            else:
                assert getattr(view, name) is None


def test_no_view_leaks_what_a_neighbour_asked_for() -> None:
    narrowed = make_trace().for_policy(NOTHING, WORDS)
    assert [layer.observed for layer in narrowed.layers] == [{}] * 3
    view = narrowed.views[0]
    conveniences = ("queries", "column_sums", "future", "similarity", "boundaries", "probes")
    assert [getattr(view, name) for name in (*conveniences, "hidden_states")] == [None] * 7


def test_of_several_counts_of_queries_a_view_shows_the_most() -> None:
    needs = frozenset({Queries(1), Queries(4), Queries(3)})
    view = make_trace().for_policy(needs, WORDS).views[0]
    assert view.queries is view[Queries(4)]
    assert view[Queries(1)].shape == (4, 1, 4)


@pytest.mark.parametrize(
    ("observation", "told"),
    [
        (Queries(5), "no Queries(count=5); declare needs = frozenset({Queries(count=5)})"),
        (
            HiddenStates(),
            "no HiddenStates(); declare needs = frozenset({HiddenStates()}); it is never there",
        ),
    ],
)
def test_what_is_not_there_says_how_to_declare_it(observation: Observation[Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"this view carries {told}")):
        _ = make_trace().views[0][observation]


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


def with_probes(trace: Trace, *probes: Probe) -> Trace:
    """Each probe has two parts, of five tokens and of two."""

    def part(tokens: int, seed: int) -> Probed:
        queries, keys = draw(4, tokens, 4, seed=seed), draw(2, tokens, 4, seed=seed + 1)
        return Probed(queries=queries, keys=keys, first=0, last=6)

    def parts(seed: int) -> tuple[Probed, ...]:
        return part(5, seed), part(2, seed + 2)

    layers = (
        replace(
            layer,
            observed={
                **layer.observed,
                **{p: parts(100 * index + 10 * k) for k, p in enumerate(probes)},
            },
        )
        for index, layer in enumerate(trace.layers)
    )
    return replace(trace, layers=tuple(layers))


def test_a_policy_sees_the_probes_it_asks_for() -> None:
    mine, other = Ends(prefix=3, suffix=2), Repeat(chunk=4)
    trace = with_probes(make_trace(), mine, other)
    (view, *_) = trace.for_policy(frozenset({mine}), WORDS).views
    assert view.probes is not None
    assert list(view.probes) == [mine]
    assert view.probed(Ends(prefix=3, suffix=2)) is view.probes[mine]
    for needs in (NOTHING, frozenset({mine})):
        (view, *_) = trace.for_policy(needs, WORDS).views
        with pytest.raises(ValueError, match=r"no Repeat\(.*declare needs = frozenset\({Repeat"):
            view.probed(other)


@dataclass(frozen=True)
class Found:
    """What a stranger's observation may make of a layer."""

    sums: dict[str, torch.Tensor]
    pair: tuple[torch.Tensor, int]
    number: float = 0.5


@dataclass(frozen=True)
class Strange(Observation[Found]):
    name: str

    def observing(self, reading: Reading) -> Any:
        raise NotImplementedError


def test_every_tensor_of_a_layer_is_named() -> None:
    (layer, *_) = make_trace().layers
    found = Found(sums={"a": torch.ones(2)}, pair=(torch.ones(3), 4))
    mine = replace(layer, observed={ColumnSums(): torch.ones(4), Strange("x"): found})
    assert list(dict(mine.tensors())) == [
        "keys",
        "values",
        "[ColumnSums()]",
        "[Strange(name='x')].sums['a']",
        "[Strange(name='x')].pair[0]",
    ]
    moved = mine.moved("meta")
    assert {tensor.device.type for _, tensor in moved.tensors()} == {"meta"}
    again = moved.observed[Strange("x")]
    assert (again.number, again.pair[1]) == (0.5, 4)
    assert moved.scaling == layer.scaling


def test_the_tensors_of_probes_are_among_them() -> None:
    probe = Repeat(chunk=4)
    (layer, *_) = with_probes(make_trace(), probe).layers
    named = dict(layer.narrowed(frozenset({probe})).tensors())
    assert list(named)[2:] == [
        f"[{probe}][{part}].{name}" for part in (0, 1) for name in ("queries", "keys")
    ]
