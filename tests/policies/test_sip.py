"""The scorer, its labels and its loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kvharness_policies.sip.features import Feature, parse_features, position_features
from kvharness_policies.sip.label import horizon_attention, loss, top_labels
from kvharness_policies.sip.scorer import Heads, Outlook, Scorer, Shape

SHAPE = Shape(layers=3, kv_heads=2, head_size=4, width=8)
TOKENS = 40


def heads(seed: int = 0, *, count: int = 5) -> Heads:
    rng = torch.Generator().manual_seed(seed)
    return Heads(
        keys=torch.randn(count, TOKENS, 4, generator=rng),
        values=torch.randn(count, TOKENS, 4, generator=rng),
        prefill=torch.rand(count, TOKENS, generator=rng) / TOKENS,
        layer=torch.randint(3, (count,), generator=rng),
        head=torch.randint(2, (count,), generator=rng),
    )


def scorer(features: str = "position+keys+values") -> Scorer:
    torch.manual_seed(0)
    return Scorer(replace(SHAPE, features=features)).eval()


# -- what it sees ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", tuple(Feature)),
        ("values+keys", (Feature.KEYS, Feature.VALUES)),
        ("position", (Feature.POSITION,)),
    ],
)
def test_features_are_read_in_one_order(text: str, expected: tuple[Feature, ...]) -> None:
    assert parse_features(text) == expected


@pytest.mark.parametrize("text", ["", "key", "keys+keys", "all+keys", "keys,values"])
def test_other_features_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected all, or some of position, keys, values"):
        parse_features(text)


@pytest.mark.parametrize("hidden", [Feature.KEYS, Feature.VALUES, Feature.PREFILL])
def test_a_scorer_is_blind_to_what_it_was_not_given(hidden: Feature) -> None:
    given = heads()
    other = replace(given, **{hidden.value: getattr(given, hidden.value) * 3 + 1})
    seen = "+".join(feature for feature in Feature if feature is not hidden)
    blind, sighted = scorer(seen), scorer("all")
    assert torch.equal(blind(given).score, blind(other).score)
    assert not torch.equal(sighted(given).score, sighted(other).score)


def test_without_position_equal_tokens_score_alike() -> None:
    given = heads()
    same = replace(given, keys=given.keys[:, :1].expand(-1, TOKENS, -1))
    assert bool((scorer("keys")(same).score.std(dim=1) < 1e-6).all())
    assert bool((scorer("position+keys")(same).score.std(dim=1) > 1e-6).all())


def test_positions_count_from_both_ends() -> None:
    where = position_features(TOKENS, torch.device("cpu"))
    assert where.shape == (TOKENS, 6)
    assert where[:, 4].nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert where[:, 5].nonzero().flatten().tolist() == list(range(TOKENS - 16, TOKENS))
    assert where[0, 0] == 0
    assert where[-1, 1] == 0


# -- what it says ---------------------------------------------------------------------------------


def test_the_score_is_that_of_the_formula() -> None:
    network, given = scorer(), heads()
    with torch.no_grad():
        network.decay.copy_(torch.randn(6))
        network.temperature.fill_(0.3)
        found = network(given)
    for b in range(5):
        decay = float(network.decay.detach()[int(given.layer[b]) * 2 + int(given.head[b])])
        for j in range(TOKENS):
            weights = [math.exp(float(c) / math.exp(0.3)) for c in found.confidence[b, j]]
            importance = sum(
                w / sum(weights) / (1 + math.exp(-float(a)))
                for w, a in zip(weights, found.important[b, j], strict=True)
            )
            left = (TOKENS - 1 - j) / TOKENS
            expected = math.exp(-math.log1p(math.exp(decay)) * left) * importance
            assert float(found.score[b, j]) == pytest.approx(math.log(expected), abs=1e-4)


def test_heads_are_scored_one_by_one() -> None:
    network, given = scorer(), heads()
    fields = ("keys", "values", "prefill", "layer", "head")
    with torch.no_grad():
        together = network(given).score
        for b in range(5):
            alone = network(Heads(**{name: getattr(given, name)[b : b + 1] for name in fields}))
            assert torch.allclose(alone.score[0], together[b], atol=1e-5)


def test_keys_and_values_are_standardised_by_layer_and_head() -> None:
    network, given = scorer(), heads()
    shift = torch.randn(2, 3, 2, 4)
    moved = replace(
        given,
        keys=given.keys * 2 + shift[0, given.layer, given.head][:, None],
        values=given.values * 2 + shift[1, given.layer, given.head][:, None],
    )
    with torch.no_grad():
        before = network(given).score
        network.mean.copy_(shift)
        network.deviation.fill_(2.0)
        assert torch.allclose(network(moved).score, before, atol=1e-4)


# -- what it learns from --------------------------------------------------------------------------


def test_horizons_average_the_first_future_tokens() -> None:
    future = torch.rand(2, 3, 64, 10)
    found = horizon_attention(future)
    assert found.shape == (2, 3, 4, 10)
    for index, ahead in enumerate((1, 4, 16, 64)):
        rows = [future[1, 2, step].tolist() for step in range(ahead)]
        expected = [sum(column) / ahead for column in zip(*rows, strict=True)]
        assert found[1, 2, index].tolist() == pytest.approx(expected, rel=1e-5)


def test_a_quarter_is_important_and_ties_go_to_the_earlier() -> None:
    assert top_labels(torch.tensor([0.0, 5.0, 1.0, 5.0, 0.0, 5.0, 2.0, 0.0])).tolist() == [
        *(False, True, False, True),
        *(False, False, False, False),
    ]
    assert int(top_labels(torch.rand(3, 4, 101)).sum()) == 3 * 4 * 25


def outlook(important: torch.Tensor, score: torch.Tensor, confidence: float = 0.0) -> Outlook:
    return Outlook(
        important=important, confidence=torch.full_like(important, confidence), score=score
    )


def test_the_loss_is_entropy_of_a_guess_and_vanishes_for_an_oracle() -> None:
    labels = top_labels(torch.rand(2, 40))[..., None].expand(-1, -1, 4)
    rng = torch.Generator().manual_seed(0)
    guess = torch.full((2, 40, 4), math.log(1 / 3))
    chance = loss(outlook(guess, torch.zeros(2, 40)), labels, rng)
    assert float(chance.bce) == pytest.approx(0.5623, abs=1e-3)
    assert float(chance.ranking) == 1
    knows = (labels.float() * 2 - 1) * 50
    perfect = loss(outlook(knows, knows[..., 0], 50.0), labels, rng)
    assert float(perfect.total) == pytest.approx(0, abs=1e-6)
    assert float(loss(outlook(knows, knows[..., 0], -50.0), labels, rng).brier) == 1
