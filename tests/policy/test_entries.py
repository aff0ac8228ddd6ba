from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness import Protection
from kvharness.policy.entries import protected_mask, top_entries

LAYERS, HEADS, TOKENS = 3, 2, 10
SHAPE = (LAYERS, HEADS, TOKENS)
PROTECTION = Protection(sinks=1, recents=2)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
#: Few different numbers make ties; the extremes tie with careless padding.
SCORES = st.sampled_from([0.0, -0.0, 1.0, 2.0, torch.finfo().max, torch.finfo().min]) | FINITE


def naive_top(scores: list[float], budget: int, protected: list[bool]) -> list[bool]:
    first = [j for j in range(len(scores)) if protected[j]]
    rest = [j for j in range(len(scores)) if not protected[j]]
    chosen = set((first + sorted(rest, key=lambda j: -scores[j]))[:budget])
    return [j in chosen for j in range(len(scores))]


@given(data=st.data(), tokens=st.integers(1, 12), rows=st.integers(1, 4))
def test_top_entries_equals_a_sort(data: st.DataObject, tokens: int, rows: int) -> None:
    row = st.lists(SCORES, min_size=tokens, max_size=tokens)
    scores = data.draw(st.lists(row, min_size=rows, max_size=rows))
    budgets = data.draw(st.lists(st.integers(0, tokens), min_size=rows, max_size=rows))
    protected = data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens))
    mask = top_entries(torch.tensor(scores), torch.tensor(budgets), torch.tensor(protected))
    expected = [naive_top(row, b, protected) for row, b in zip(scores, budgets, strict=True)]
    assert mask.tolist() == expected
    assert mask.sum(dim=-1).tolist() == budgets


@given(tokens=st.integers(1, 3000), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_top_entries_of_many_ties_keeps_the_earlier(tokens: int, share: float, seed: int) -> None:
    # Sorts of longer rows take other code paths than those of short ones.
    few = torch.randint(0, 3, (2, tokens), generator=torch.Generator().manual_seed(seed)).float()
    budget = int(share * tokens)
    none = [False] * tokens
    mask = top_entries(few, torch.tensor([budget, budget]), torch.tensor(none))
    assert mask.tolist() == [naive_top(row, budget, none) for row in few.tolist()]


def test_protection_beats_the_largest_number_there_is() -> None:
    scores = torch.full((1, 6), torch.finfo(torch.float32).max)
    protected = torch.tensor([False, False, False, False, True, True])
    assert top_entries(scores, torch.tensor([2]), protected).tolist() == [protected.tolist()]


def test_top_entries_leaves_its_input_alone() -> None:
    scores = torch.rand(SHAPE)
    before = scores.clone()
    top_entries(scores, torch.full((LAYERS, HEADS), 3), protected_mask(TOKENS, PROTECTION))
    assert torch.equal(scores, before)


@given(tokens=st.integers(0, 9), sinks=st.integers(0, 12), recents=st.integers(0, 12))
def test_protected_mask(tokens: int, sinks: int, recents: int) -> None:
    mask = protected_mask(tokens, Protection(sinks=sinks, recents=recents))
    assert mask.tolist() == [j < sinks or j >= tokens - recents for j in range(tokens)]
