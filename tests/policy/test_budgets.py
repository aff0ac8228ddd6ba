from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.policy.budgets import Scope, exact_budgets, shared_budgets


@given(data=st.data())
def test_budgets_add_up_within_their_limits(data: st.DataObject) -> None:
    heads = data.draw(st.integers(1, 12))
    low = data.draw(st.integers(0, 20))
    high = low + data.draw(st.integers(0, 50))
    total = data.draw(st.integers(low * heads, high * heads))
    wanted = data.draw(st.lists(st.floats(low, 1e4), min_size=heads, max_size=heads))
    found = exact_budgets(torch.tensor([wanted]), total=total, low=low, high=high)
    assert found.shape == (1, heads)
    assert found.dtype == torch.int64
    assert int(found.sum()) == total
    assert low <= int(found.min())
    assert int(found.max()) <= high


@given(data=st.data())
def test_budgets_keep_the_order_of_what_is_wanted(data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.floats(0, 100), min_size=2, max_size=8))
    total = data.draw(st.integers(0, 40 * len(wanted)))
    found = exact_budgets(torch.tensor(wanted), total=total, low=0, high=40).tolist()
    for one, mine in zip(wanted, found, strict=True):
        for other, theirs in zip(wanted, found, strict=True):
            if one > other + 1e-3:
                assert mine >= theirs - 1


def test_whole_budgets_stay_as_they_are() -> None:
    wanted = torch.tensor([[7.0, 3.0], [12.0, 2.0]])
    assert torch.equal(exact_budgets(wanted, total=24, low=0, high=20), wanted.long())


def test_what_one_head_cannot_hold_goes_to_the_others_in_proportion() -> None:
    wanted = torch.tensor([[90.0, 20.0, 10.0]])
    assert exact_budgets(wanted, total=90, low=0, high=60).tolist() == [[60, 20, 10]]


def test_remainders_go_to_the_largest_and_then_to_the_earlier() -> None:
    assert exact_budgets(torch.ones(3), total=7, low=0, high=9).tolist() == [3, 2, 2]


def test_impossible_totals_are_refused() -> None:
    with pytest.raises(ValueError, match=r"9 entries for 2 heads: expected from 2 to 8"):
        exact_budgets(torch.ones(2), total=9, low=1, high=4)


# -- from scores ----------------------------------------------------------------------------------


@st.composite
def situations(draw: st.DrawFn) -> tuple[torch.Tensor, int, torch.Tensor]:
    """Scores with many ties, a budget, and protected tokens that it can hold."""
    layers, heads, tokens = (draw(st.integers(1, most)) for most in (4, 3, 9))
    budget = draw(st.integers(1, tokens))
    kept = draw(st.lists(st.integers(0, tokens - 1), unique=True, max_size=budget))
    protected = torch.zeros(tokens, dtype=torch.bool)
    protected[kept] = True
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    levels = draw(st.sampled_from((1, 3, 1000)))
    scores = torch.randint(levels, (layers, heads, tokens), generator=generator).float()
    return scores, budget, protected


def naive_shared(
    scores: torch.Tensor, free: list[int], protected: list[bool], safeguard: float
) -> list[list[float]]:
    """Real budgets of scope "layer" for layers with so many free entries."""
    wanted = []
    for layer, entries in zip(scores.tolist(), free, strict=True):
        ranked = sorted(
            (-score, head, token)
            for head, row in enumerate(layer)
            for token, score in enumerate(row)
            if not protected[token]
        )
        own = [sum(h == head for _, h, _ in ranked[:entries]) for head in range(len(layer))]
        even = entries / len(layer)
        wanted.append([sum(protected) + (1 - safeguard) * o + safeguard * even for o in own])
    return wanted


@given(
    situation=situations(),
    scope=st.sampled_from(Scope),
    safeguard=st.sampled_from((0.0, 0.2, 1 / 3, 1.0)),
    data=st.data(),
)
def test_shared_budgets_add_up_within_their_limits(
    situation: tuple[torch.Tensor, int, torch.Tensor],
    scope: Scope,
    safeguard: float,
    data: st.DataObject,
) -> None:
    scores, budget, protected = situation
    layers, heads, tokens = scores.shape
    weights = None
    if scope is not Scope.MODEL and data.draw(st.booleans()):
        number = st.just(0.0) | st.floats(1e-6, 1e6)
        weights = torch.tensor(data.draw(st.lists(number, min_size=layers, max_size=layers)))
    found = shared_budgets(
        scores, budget, protected, scope=scope, weights=weights, safeguard=safeguard
    )
    assert found.dtype == torch.int64
    assert found.shape == (layers, heads)
    assert int(found.sum()) == budget * layers * heads
    assert int(found.min()) >= int(protected.sum())
    assert int(found.max()) <= tokens


@given(situation=situations(), safeguard=st.sampled_from((0.0, 0.2, 0.75, 1.0)))
def test_heads_get_their_share_of_their_layers_best(
    situation: tuple[torch.Tensor, int, torch.Tensor], safeguard: float
) -> None:
    scores, budget, protected = situation
    kept, (layers, heads, _) = int(protected.sum()), scores.shape
    free = [(budget - kept) * heads] * layers
    wanted = naive_shared(scores, free, protected.tolist(), safeguard)
    found = shared_budgets(scores, budget, protected, scope=Scope.LAYER, safeguard=safeguard)
    assert (found - torch.tensor(wanted)).abs().max() < 1
    assert found.sum(dim=1).tolist() == [budget * heads] * layers


@given(situation=situations())
def test_one_layer_is_a_model(situation: tuple[torch.Tensor, int, torch.Tensor]) -> None:
    scores, budget, protected = situation
    whole = scores.flatten(0, 1)[None]
    flat = shared_budgets(whole, budget, protected, scope=Scope.LAYER)
    found = shared_budgets(scores, budget, protected, scope=Scope.MODEL)
    assert found.flatten().tolist() == flat.flatten().tolist()


@given(situation=situations())
def test_every_head_keeps_the_safeguard(
    situation: tuple[torch.Tensor, int, torch.Tensor],
) -> None:
    scores, budget, protected = situation
    kept = int(protected.sum())
    for scope in Scope:
        found = shared_budgets(scores, budget, protected, scope=scope, safeguard=0.5)
        assert int(found.min()) >= kept + int(0.5 * (budget - kept))
        even = shared_budgets(scores, budget, protected, scope=scope, safeguard=1)
        assert even.unique().tolist() == [budget]


def test_entries_go_to_the_layers_by_weight_and_to_heads_by_score() -> None:
    scores = torch.tensor([[[9.0, 8, 7, 6], [0, 1, 0, 5]], [[1.0, 1, 1, 1], [1, 1, 1, 1]]])
    protected = torch.tensor([False, False, False, True])
    weights = torch.tensor([3.0, 1.0])

    def found(scope: Scope) -> list[list[int]]:
        given = weights if scope is not Scope.MODEL else None
        budgets: list[list[int]] = shared_budgets(
            scores, 2, protected, scope=scope, weights=given
        ).tolist()
        return budgets

    assert found(Scope.HEAD) == [[3, 2], [2, 1]]
    assert found(Scope.LAYER) == [[4, 1], [2, 1]]
    assert found(Scope.MODEL) == [[4, 2], [1, 1]]


def test_a_layer_takes_no_more_than_there_is() -> None:
    nothing = torch.zeros(4, dtype=torch.bool)
    weights = torch.tensor([1.0, 0.0, 0.0])
    found = shared_budgets(
        torch.zeros(3, 1, 4), 2, nothing, scope=Scope.HEAD, weights=weights
    ).tolist()
    assert found == [[4], [1], [1]]


def test_impossible_shares_are_refused() -> None:
    scores, nothing = torch.zeros(2, 1, 4), torch.zeros(4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"safeguard=1.5: expected a share from 0 to 1"):
        shared_budgets(scores, 2, nothing, scope=Scope.LAYER, safeguard=1.5)
    with pytest.raises(ValueError, match=r"\[-1.0, 2.0\]: expected finite numbers from 0"):
        shared_budgets(scores, 2, nothing, scope=Scope.HEAD, weights=torch.tensor([-1.0, 2]))
    with pytest.raises(ValueError, match="scope 'model' moves entries between layers"):
        shared_budgets(scores, 2, nothing, scope=Scope.MODEL, weights=torch.ones(2))
    with pytest.raises(ValueError, match="-2 entries for 2 heads"):
        shared_budgets(scores, 2, torch.arange(4) < 3, scope=Scope.HEAD)
