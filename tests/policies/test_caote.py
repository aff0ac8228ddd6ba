from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import ColumnSums, Protection, Queries
from kvharness.engine.select import score_tokens
from kvharness_policies.ada import Ada
from kvharness_policies.caote import CAOTE
from kvharness_policies.coupled import Coupled
from kvharness_policies.expected_attention import ExpectedAttention
from kvharness_policies.h2o import H2O
from kvharness_policies.lava import LAVa
from kvharness_policies.prefill_attention import PrefillAttention
from kvharness_policies.pyramidkv import PyramidKV
from kvharness_policies.random import Random
from kvharness_policies.scissorhands import Scissorhands
from kvharness_policies.snapkv import SnapKV
from kvharness_policies.tova import TOVA
from tests.policies.test_criticalkv import NARROW

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import Policy
    from kvharness.policy.trace import LayerTrace
    from tests.policies.conftest import Keep, MakeTrace, Rows


def naive_error(weights: list[float], values: Rows, *, fast: bool) -> list[float]:
    """How far the output moves when one token is evicted, by doing it."""
    tokens, size = len(values), len(values[0])
    shares = [w / sum(weights) for w in weights]
    output = [sum(shares[j] * values[j][x] for j in range(tokens)) for x in range(size)]
    if fast:
        mean = [sum(value[x] for value in values) / tokens for x in range(size)]
        return [a / (1 - a) * math.dist(mean, v) for a, v in zip(shares, values, strict=True)]
    errors = []
    for gone in range(tokens):
        rest = 1 - shares[gone]
        after = [(output[x] - shares[gone] * values[gone][x]) / rest for x in range(size)]
        errors.append(math.dist(output, after))
    return errors


@pytest.mark.parametrize("scorer", [H2O(), TOVA(), SnapKV(window=3), PyramidKV(window=3)])
def test_scores_are_sound(scorer: Policy, check_scores: Callable[[Policy], None]) -> None:
    check_scores(CAOTE(scorer))


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("scorer", [H2O(), TOVA(), SnapKV(window=3)])
def test_caote_scores_are_the_errors_of_single_evictions(
    scorer: Policy,
    fast: bool,  # noqa: FBT001 - a parameter
    make_trace: MakeTrace,
    naive_attention: Callable[[LayerTrace, int], Rows],
    group: Callable[[int], range],
) -> None:
    policy = CAOTE(scorer, fast=fast)
    whole = make_trace(tokens=11)
    trace = whole.for_policy(policy.needs, NARROW)
    scores = score_tokens(policy, trace, name="tested")
    for view, rows in zip(trace.views, scores, strict=True):
        attention = scorer.score(view)
        for k in range(2):
            weights = attention[k].tolist()
            if isinstance(scorer, SnapKV):
                maps = [naive_attention(whole.layers[view.layer], h)[-3:] for h in group(k)]
                weights[-3:] = [sum(r[j] for rows in maps for r in rows) / 6 for j in (8, 9, 10)]
            expected = naive_error(weights, view.values[k].tolist(), fast=fast)
            torch.testing.assert_close(rows[k], torch.tensor(expected), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(policy.score(view), rows)


def test_caote_is_finite_where_one_token_has_all_attention_or_none_has(
    make_trace: MakeTrace,
) -> None:
    view = make_trace(tokens=6, layers=1).views[0]
    sums = torch.zeros(4, 6)
    assert CAOTE(H2O()).score(replace(view, observed={ColumnSums(): sums})).isfinite().all()
    sums[:, 2] = 1.0
    scores = CAOTE(H2O()).score(replace(view, observed={ColumnSums(): sums}))
    assert not scores.any(), "the output is that token's value, so nothing else matters"


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (CAOTE(Ada(SnapKV(window=2))), Ada(CAOTE(SnapKV(window=2)))),
        (CAOTE(Coupled(SnapKV(window=2))), Coupled(CAOTE(SnapKV(window=2)))),
    ],
)
def test_the_window_counts_through_other_wrappers(
    outer: CAOTE, inner: Policy, make_trace: MakeTrace, keep: Keep
) -> None:
    trace, protection = make_trace(tokens=24), Protection(sinks=1, recents=1)
    assert keep(outer, trace, 10, protection) == keep(inner, trace, 10, protection)


@pytest.mark.parametrize("scorer", [LAVa(), Ada(LAVa())])
def test_scores_that_are_scaled_by_values_are_no_attention(scorer: Policy) -> None:
    with pytest.raises(ValueError, match=r"lava's scores .*; wrap snapkv or ada\(snapkv\)"):
        CAOTE(scorer)


def test_only_what_it_was_made_for_is_scored_in_blocks() -> None:
    able = [H2O(), TOVA(), SnapKV()]
    assert all(CAOTE(each).capabilities.blocks for each in able)
    others = [ExpectedAttention(), Scissorhands(record="mean"), PrefillAttention(), Random()]
    assert not any(CAOTE(each).capabilities.blocks for each in others)


def test_caote_protects_as_the_wrapped_policy() -> None:
    assert CAOTE(SnapKV(window=5)).protect(40, 20) == Protection(sinks=0, recents=5)
    assert CAOTE(SnapKV(window=5)).needs == frozenset({Queries(5)})
