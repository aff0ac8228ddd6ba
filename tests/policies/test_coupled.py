from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness import Boundaries, ColumnSums, Protection, Trace
from kvharness.engine.select import score_tokens
from kvharness.policy.trace import LayerTrace
from kvharness_policies.ada import Ada
from kvharness_policies.coupled import Coupled, Groups
from kvharness_policies.criticalkv import CriticalKV
from kvharness_policies.h2o import H2O
from kvharness_policies.knorm import Knorm
from kvharness_policies.prefill_attention import PrefillAttention
from kvharness_policies.random_tied import RandomTied
from kvharness_policies.snapkv import SnapKV
from tests.policies.conftest import choice_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import Policy
    from tests.policies.conftest import Keep, MakeTrace, NaiveKept


def naive(
    scores: list[float], budget: int, protected: set[int], groups: list[list[int]]
) -> list[int]:
    tokens = range(len(scores))
    free = [[j for j in group if j not in protected] for group in groups]
    ranked = sorted(
        (g for g in free if g), key=lambda g: (-sum(scores[j] for j in g) / len(g), g[0])
    )
    kept = set(protected)
    for each in ranked:
        if len(kept) + len(each) > budget:
            break
        kept |= set(each)
    rest = sorted((j for j in tokens if j not in kept), key=lambda j: (-scores[j], j))
    return sorted(kept | set(rest[: budget - len(kept)]))


def blocks(tokens: int, group: int) -> list[list[int]]:
    return [list(range(j, min(j + group, tokens))) for j in range(0, tokens, group)]


def sentences(ends: list[bool]) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for j, end in enumerate(ends):
        found[-1].append(j)
        if end:
            found.append([])
    return [each for each in found if each]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whole_groups_and_then_the_highest_scores(data: st.DataObject) -> None:
    tokens = data.draw(st.integers(1, 14), "tokens")
    group = data.draw(st.integers(1, 6), "group")
    ends = data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens), "ends")
    kind = data.draw(st.sampled_from(Groups), "groups")
    budget = data.draw(st.integers(1, tokens), "budget")
    protected = data.draw(st.sets(st.integers(0, tokens - 1), max_size=budget), "protected")
    row = st.lists(st.integers(-3, 3), min_size=tokens, max_size=tokens)
    scores = data.draw(st.lists(row, min_size=2, max_size=2), "scores")
    mask = torch.zeros(tokens, dtype=torch.bool)
    mask[sorted(protected)] = True
    policy = Coupled(Knorm(), groups=kind, group=group)
    empty = torch.zeros(2, tokens, 1)
    trace = Trace(
        layers=(
            LayerTrace(
                keys=empty,
                values=empty,
                scaling=1.0,
                observed={Boundaries(): torch.tensor(ends)},
            ),
        ),
        positions=torch.arange(tokens),
    )
    choice = choice_of(torch.tensor([scores]).float(), budget, mask, trace)
    kept = policy.select(choice, torch.full((1, 2), budget))
    found = [head.nonzero().flatten().tolist() for head in kept[0]]
    groups = blocks(tokens, group) if kind == Groups.BLOCKS else sentences(ends)
    assert found == [naive([float(x) for x in each], budget, protected, groups) for each in scores]


def test_groups_of_one_are_the_wrapped_choice(make_trace: MakeTrace, keep: Keep) -> None:
    trace = make_trace(tokens=14)
    protection = Protection(sinks=1, recents=2)
    for inner in (H2O(), Ada(PrefillAttention())):
        expected = keep(inner, trace, 7, protection)
        assert keep(Coupled(inner, groups="blocks", group=1), trace, 7, protection) == expected


def test_scores_and_budgets_are_the_wrapped_ones(
    make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    trace, inner = make_trace(tokens=14), Ada(PrefillAttention(), alpha=0)
    counts = [[len(head) for head in layer] for layer in keep(inner, trace, 6)]
    kept = keep(Coupled(inner, groups="blocks", group=3), trace, 6)
    assert [[len(head) for head in layer] for layer in kept] == counts
    single = [
        [naive_kept(row, due) for row, due in zip(rows, dues, strict=True)]
        for rows, dues in zip(
            score_tokens(PrefillAttention(), trace, name="tested").tolist(), counts, strict=True
        )
    ]
    assert kept != single, "the groups decide"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Coupled(CriticalKV(SnapKV())),
        lambda: CriticalKV(Coupled(SnapKV())),
        lambda: Coupled(Ada(CriticalKV(SnapKV()))),
        lambda: Coupled(Coupled(SnapKV())),
        lambda: Coupled(RandomTied()),
    ],
)
def test_two_that_choose_themselves_are_refused(make: Callable[[], Policy]) -> None:
    with pytest.raises(ValueError, match=r"\w+ and \w+ both choose by more than scores"):
        make()


def test_impossible_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="group=0: expected 1 or more"):
        Coupled(H2O(), group=0)
    with pytest.raises(ValueError, match="groups='words': expected one of sentences, blocks"):
        Coupled(H2O(), groups="words")


def test_only_sentences_need_the_text(make_trace: MakeTrace) -> None:
    assert Coupled(H2O()).needs == frozenset({ColumnSums(), Boundaries()})
    assert Coupled(H2O(), groups="blocks").needs == H2O().needs
    blind = make_trace().for_policy(H2O().needs, ("1", "2", "3"))
    choice = choice_of(torch.zeros(2, 2, 10), 5, torch.zeros(10, dtype=torch.bool), blind)
    with pytest.raises(ValueError, match=r"no Boundaries\(\); declare needs"):
        Coupled(H2O()).select(choice, torch.full((2, 2), 5))
