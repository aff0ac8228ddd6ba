from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness import Policy, Protection, Trace
from kvharness.engine.select import keep_mask, mask_digest, verified_budgets, verified_mask
from kvharness.errors import PolicyProblem
from kvharness.policy.entries import protected_mask, top_entries
from kvharness.policy.trace import LayerTrace
from tests.policy.test_entries import HEADS, LAYERS, PROTECTION, SHAPE, TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kvharness import Choice, View

BUDGET = 5


def make_trace(tokens: int = TOKENS) -> Trace:
    keys = torch.randn(LAYERS, HEADS, tokens, 4, generator=torch.Generator().manual_seed(0))
    return Trace(
        layers=tuple(LayerTrace(keys=each, values=each, scaling=0.5) for each in keys),
        positions=torch.arange(tokens),
        rng_words=("0", "item", "policy"),
    )


@dataclass(frozen=True)
class Scripted(Policy):
    """Does what a test tells it to; otherwise the defaults."""

    given: dict[str, Any] = field(default_factory=dict)

    def score(self, view: View) -> Any:
        score = torch.arange(view.tokens).float().repeat(view.kv_heads, 1)
        return self.given["score"](view, score) if "score" in self.given else score

    def allocate(self, choice: Choice) -> Any:
        return self._changed("allocate", super().allocate(choice))

    def protect(self, tokens: int, budget: int) -> Any:
        return self._changed("protect", super().protect(tokens, budget))

    def select(self, choice: Choice, budgets: Tensor) -> Any:
        return self._changed("select", super().select(choice, budgets))

    def _changed(self, stage: str, usual: object) -> object:
        return self.given[stage](usual) if stage in self.given else usual


class Informed(Policy):
    """Keeps the tokens of the largest values, which it looks up as it selects; scores are 0."""

    def score(self, view: View) -> Tensor:
        return torch.zeros(view.kv_heads, view.tokens)

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        sums = torch.stack([view.values.sum(dim=-1) for view in choice.trace.views])
        return super().select(replace(choice, scores=choice.scores + sums), budgets)


def run(policy: Policy, protection: Protection = PROTECTION) -> Tensor:
    return keep_mask(policy, make_trace(), BUDGET, protection, name="mine")


def problem(policy: Policy) -> PolicyProblem:
    with pytest.raises(PolicyProblem) as caught:
        run(policy)
    assert caught.value.policy == "mine"
    assert str(caught.value).startswith("policy 'mine'")
    return caught.value


def test_a_sound_policy_keeps_exactly_its_budget() -> None:
    mask = run(Scripted())
    assert mask.dtype == torch.bool
    assert mask.shape == SHAPE
    # The sink, and the four highest scores: the last four.
    assert mask.tolist() == [[[j in {0, 6, 7, 8, 9} for j in range(TOKENS)]] * HEADS] * LAYERS


def test_more_protection_is_kept_and_cut_to_the_budget() -> None:
    mask = run(Scripted({"protect": lambda _: Protection(sinks=50, recents=0)}))
    assert mask.tolist() == [[[j in {0, 1, 2, 8, 9} for j in range(TOKENS)]] * HEADS] * LAYERS


def in_layer(layer: int, change: Callable[[Tensor], object]) -> Callable[[View, Tensor], object]:
    return lambda view, score: change(score) if view.layer == layer else score


def put(tensor: Tensor, index: tuple[int, ...], value: float) -> Tensor:
    changed = tensor.clone()
    changed[index] = value
    return changed


WRONG_SCORES: list[tuple[Any, int, str]] = [
    (lambda s: s[:, :-1], 1, r"score returned shape \(2, 9\), expected \(2, 10\)"),
    (lambda s: s[None], 1, r"score returned shape \(1, 2, 10\), expected \(2, 10\)"),
    (lambda s: s.T, 2, r"score returned shape \(10, 2\), expected \(2, 10\)"),
    (lambda s: s.tolist(), 1, "score returned list, expected a tensor"),
    (lambda _: None, 0, "score returned NoneType, expected a tensor"),
    (lambda s: s.numpy(), 1, "score returned ndarray, expected a tensor"),
    (lambda s: put(s, (1, 4), float("nan")), 2, "score has 1 NaN or infinite entries, expected"),
    (lambda s: put(s, (0,), float("inf")), 1, "score has 10 NaN or infinite entries, expected"),
    (lambda s: put(s, (1, 0), float("-inf")), 0, "score has 1 NaN or infinite entries, expected"),
    (lambda s: s.double(), 1, r"score returned torch.float64, expected torch.float32"),
    (lambda s: s.bfloat16(), 1, r"score returned torch.bfloat16, expected torch.float32"),
    (lambda s: s.long(), 2, r"score returned torch.int64, expected torch.float32"),
]


@pytest.mark.parametrize(("change", "layer", "message"), WRONG_SCORES)
def test_a_wrong_score_names_policy_layer_and_what_was_expected(
    change: Callable[[Tensor], object], layer: int, message: str
) -> None:
    error = problem(Scripted({"score": in_layer(layer, change)}))
    assert error.layer == layer
    assert re.match(rf"policy 'mine' \(layer {layer}\): {message}", str(error))


@pytest.mark.parametrize(
    ("change", "layer", "message"),
    [
        (lambda b: put(b, (1, 0), 6), None, r"budgets add up to 31, expected 5 x 3 x 2 = 30"),
        (lambda b: b - 1, None, r"budgets add up to 24, expected 5 x 3 x 2 = 30"),
        (
            lambda b: put(put(b, (2, 0), -1), (2, 1), 11),
            2,
            r"allocate gave \[-1, 11\], expected numbers from 0 to 10",
        ),
        (
            lambda b: put(put(b, (1, 0), 11), (1, 1), -1),
            1,
            r"allocate gave \[11, -1\], expected numbers from 0 to 10",
        ),
        (lambda b: b.float(), None, "allocate returned torch.float32, expected integers"),
        (lambda b: b > 0, None, "allocate returned torch.bool, expected integers"),
        (lambda b: b[:2], None, r"allocate returned shape \(2, 2\), expected \(3, 2\)"),
        (lambda b: b.tolist(), None, "allocate returned list, expected a tensor"),
    ],
)
def test_wrong_budgets_say_what_was_expected(
    change: Callable[[Tensor], object], layer: int | None, message: str
) -> None:
    error = problem(Scripted({"allocate": change}))
    assert error.layer == layer
    assert re.search(message, str(error))


def test_a_head_that_cannot_hold_the_protected_is_blamed_on_allocate() -> None:
    def uneven(budgets: Tensor) -> Tensor:
        return put(put(budgets, (1, 0), BUDGET + 3), (1, 1), BUDGET - 3)

    error = problem(Scripted({"allocate": uneven}))
    assert error.layer == 1
    least = PROTECTION.total
    assert f"allocate gave head 1 {BUDGET - 3} entries, expected at least {least}: " in str(error)


def test_a_head_may_hold_the_protected_and_nothing_else() -> None:
    least = PROTECTION.total

    def uneven(budgets: Tensor) -> Tensor:
        return put(put(budgets, (1, 0), 2 * BUDGET - least), (1, 1), least)

    assert run(Scripted({"allocate": uneven}))[1, 1].sum() == least


def swapped(mask: Tensor, layer: int, head: int, out: int, into: int) -> Tensor:
    return put(put(mask, (layer, head, out), 0), (layer, head, into), 1)


@pytest.mark.parametrize(
    ("change", "layer", "message"),
    [
        (
            lambda m: swapped(m, 1, 0, 0, 3),
            1,
            r"select evicted protected tokens \[0\]; sinks and recents must stay",
        ),
        (
            lambda m: swapped(swapped(m, 2, 1, 9, 3), 2, 0, 8, 3),
            2,
            r"select evicted protected tokens \[8, 9\]; sinks and recents must stay",
        ),
        (
            lambda m: put(m, (2, 1, 3), 1),
            2,
            r"select kept \[5, 6\] entries, expected \[5, 5\]",
        ),
        (lambda m: put(m, (0, 0, 9), 0), 0, r"select kept \[4, 5\] entries, expected \[5, 5\]"),
        (lambda m: m.int(), None, "select returned torch.int32, expected torch.bool"),
        (
            lambda m: m[..., :9],
            None,
            r"select returned shape \(3, 2, 9\), expected \(3, 2, 10\)",
        ),
        (lambda m: m.nonzero().tolist(), None, "select returned list, expected a tensor"),
    ],
)
def test_a_wrong_mask_says_what_was_expected(
    change: Callable[[Tensor], object], layer: int | None, message: str
) -> None:
    error = problem(Scripted({"select": change}))
    assert error.layer == layer
    assert re.search(message, str(error))


@pytest.mark.parametrize("given", [(4, 16), None, 7])
def test_protect_must_return_a_protection(given: object) -> None:
    message = f"protect returned {type(given).__name__}, expected a Protection"
    assert message in str(problem(Scripted({"protect": lambda _: given})))


def test_a_policy_may_select_less_protection_than_it_asked_for_but_not_less_than_the_contract() -> (
    None
):
    first = Protection(sinks=3, recents=0)
    policy = Scripted({"protect": lambda _: first, "select": lambda m: swapped(m, 0, 0, 2, 5)})
    assert run(policy)[0, 0].tolist() == [j in {0, 1, 5, 8, 9} for j in range(TOKENS)]


@given(data=st.data(), budget=st.integers(0, TOKENS))
def test_head_wise_budgets_are_kept_as_allocated(data: st.DataObject, budget: int) -> None:
    budgets = data.draw(st.lists(st.integers(0, TOKENS), min_size=6, max_size=6))
    policy = Scripted({"allocate": lambda _: torch.tensor(budgets).view(LAYERS, HEADS)})
    nothing = Protection(sinks=0, recents=0)
    if sum(budgets) == budget * LAYERS * HEADS:
        mask = keep_mask(policy, make_trace(), budget, nothing, name="mine")
        assert mask.sum(dim=-1).flatten().tolist() == budgets
    else:
        with pytest.raises(PolicyProblem, match=f"add up to {sum(budgets)}, expected {budget} x"):
            keep_mask(policy, make_trace(), budget, nothing, name="mine")


def test_the_checks_return_what_they_are_given() -> None:
    scores = torch.rand(SHAPE)
    budgets = torch.full((LAYERS, HEADS), BUDGET, dtype=torch.int32)
    assert verified_budgets(budgets, SHAPE, BUDGET, "mine").dtype == torch.int64
    mask = top_entries(scores, budgets, protected_mask(TOKENS, PROTECTION))
    least = protected_mask(TOKENS, PROTECTION)
    assert torch.equal(verified_mask(mask, SHAPE, budgets.long(), least, "mine"), mask)


@given(data=st.data())
def test_a_digest_changes_with_any_bit(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 9))
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) < 0.5
    index = tuple(data.draw(st.integers(0, size - 1)) for size in SHAPE)
    flipped = mask.clone()
    flipped[index] = ~mask[index]
    assert mask_digest(flipped) != mask_digest(mask)
    flipped[index] = mask[index]
    assert mask_digest(flipped) == mask_digest(mask)
    assert re.fullmatch(r"[0-9a-f]{16}", mask_digest(mask))


def test_a_digest_knows_the_shape() -> None:
    # Packed into bytes, both are the same zeros.
    shapes = [(1, 1, 8), (1, 1, 7), (1, 8, 1), (2, 2, 2)]
    assert len({mask_digest(torch.zeros(shape, dtype=torch.bool)) for shape in shapes}) == 4


class Rewrites(Scripted):
    """Changes what it is given, which must not reach what verifies it."""

    def allocate(self, choice: Choice) -> Any:
        budgets = super().allocate(choice)
        choice.scores.fill_(float("nan"))
        choice.protected.fill_(0)
        return budgets

    def select(self, choice: Choice, budgets: Tensor) -> Any:
        assert choice.scores.isfinite().all()
        assert int(choice.protected.sum()) == PROTECTION.total
        budgets += self.given["more"]
        return super().select(choice, budgets)


def test_rewriting_budgets_does_not_change_what_is_expected() -> None:
    assert int(run(Rewrites({"more": 0})).sum()) == BUDGET * 6
    assert "select kept [6, 6] entries, expected [5, 5]" in str(problem(Rewrites({"more": 1})))


def test_a_policy_selects_knowing_its_context() -> None:
    policy = Informed()
    sums = torch.stack([layer.values.sum(dim=-1) for layer in make_trace().layers])
    budgets = torch.full((LAYERS, HEADS), BUDGET)
    expected = top_entries(sums, budgets, torch.zeros(TOKENS, dtype=torch.bool))
    assert torch.equal(run(policy, Protection(sinks=0, recents=0)), expected)


def test_each_stage_is_given_the_whole_choice() -> None:
    class Looks(Scripted):
        def allocate(self, choice: Choice) -> Any:
            seen.append(choice)
            return super().allocate(choice)

        def select(self, choice: Choice, budgets: Tensor) -> Any:
            seen.append(choice)
            return super().select(choice, budgets)

        def protect(self, tokens: int, budget: int) -> Any:
            assert (tokens, budget) == (TOKENS, BUDGET)
            return Protection(sinks=2, recents=0)

    seen: list[Choice] = []
    run(Looks())
    first, second = seen
    assert first.budget == second.budget == BUDGET
    assert first.protected.tolist() == [j in {0, 1, 8, 9} for j in range(TOKENS)]
    assert torch.equal(first.scores, second.scores)
    assert first.trace is second.trace
    with pytest.raises(FrozenInstanceError):
        first.budget = 3  # type: ignore[misc]
