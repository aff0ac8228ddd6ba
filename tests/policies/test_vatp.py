from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Protection, Queries
from kvharness.engine.select import score_tokens
from kvharness_policies.value_blocks import ValueBlocks
from kvharness_policies.vatp import VATP

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import Policy
    from kvharness.policy.trace import LayerTrace
    from tests.policies.conftest import Keep, MakeTrace, Rows


POLICIES = [
    VATP(),
    VATP(base="scissorhands", sinks=0),
    ValueBlocks(),
    ValueBlocks(block=3, window=4),
    ValueBlocks(block=1, window=2, leverage=False),
]


def naive_vatp(maps: list[Rows], values: Rows, base: str) -> list[float]:
    tokens = len(values)
    scores = []
    for j in range(tokens):
        received = sum(row[j] for rows in maps for row in rows) / len(maps)
        norm = sum(abs(x) for x in values[j])
        scores.append(received * norm / (1 if base == "h2o" else tokens))
    return scores


@pytest.mark.parametrize("policy", POLICIES)
def test_scores_are_sound(policy: Policy, check_scores: Callable[[Policy], None]) -> None:
    check_scores(policy)


@pytest.mark.parametrize("base", ["h2o", "scissorhands"])
def test_vatp_scores_equal_the_naive_ones(
    base: str,
    make_trace: MakeTrace,
    naive_attention: Callable[[LayerTrace, int], Rows],
    group: Callable[[int], range],
) -> None:
    trace, policy = make_trace(tokens=11), VATP(base=base)
    scores = score_tokens(policy, trace.for_policy(policy.needs, ("1", "2", "3")), name="tested")
    for index, layer in enumerate(trace.layers):
        for k in range(2):
            maps = [naive_attention(layer, h) for h in group(k)]
            expected = naive_vatp(maps, layer.values[k].tolist(), base)
            torch.testing.assert_close(scores[index, k], torch.tensor(expected))


def test_vatp_guards_sinks_only_where_asked(make_trace: MakeTrace, keep: Keep) -> None:
    trace = make_trace(tokens=24, layers=1)
    trace.layers[0].values[:, :5] *= 1e-6  # sinks have small values, so norms push them down
    guarded, bare = (keep(VATP(sinks=sinks), trace, 12)[0] for sinks in (5, 0))
    assert all({*range(5)} <= {*head} for head in guarded)
    assert not any({*range(5)} & {*head} for head in bare)
    assert VATP().protect(100, 50) == Protection(sinks=20, recents=25)
    assert VATP(base="scissorhands").protect(100, 50) == Protection(sinks=20, recents=10)
    assert VATP(base="scissorhands").needs == frozenset({Queries(400)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VATP(base="tova"), "base='tova': expected one of h2o, scissorhands"),
        (lambda: VATP(sinks=-1), "sinks=-1: expected 0 or more"),
        (lambda: ValueBlocks(block=0), "block=0: expected 1 or more"),
        (lambda: ValueBlocks(window=0), "window=0: expected 1 or more"),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], Policy], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
