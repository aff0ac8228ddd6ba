from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import LoadedModel, Needs, Protection, Trace
from kvharness_policies.allocation import Ada, LAVa, PyramidKV
from kvharness_policies.attention import H2O, PrefillAttention
from kvharness_policies.chance import Random
from kvharness_policies.coupled import Coupled
from kvharness_policies.expected import ExpectedAttention
from kvharness_policies.history import Scissorhands
from kvharness_policies.keys import Knorm
from kvharness_policies.output import CAOTE, CriticalKV, output_norms, output_projections
from kvharness_policies.window import TOVA, SnapKV

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import Policy
    from kvharness.runtime import Runtime
    from kvharness.trace import LayerTrace
    from tests.policies.conftest import Keep, MakeTrace, Rows

NARROW = ("1", "2", "3")
NOTHING = Protection(sinks=0, recents=0)


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
    trace = make_trace(tokens=11).for_policy(policy.needs, NARROW)
    scores = policy.score_all(trace)
    for view, rows in zip(trace.views, scores, strict=True):
        attention = scorer.score(view)
        for k in range(2):
            weights = attention[k].tolist()
            if isinstance(scorer, SnapKV):
                maps = [naive_attention(trace.layers[view.layer], h)[-3:] for h in group(k)]
                weights[-3:] = [sum(r[j] for rows in maps for r in rows) / 6 for j in (8, 9, 10)]
            expected = naive_error(weights, view.values[k].tolist(), fast=fast)
            torch.testing.assert_close(rows[k], torch.tensor(expected), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(policy.score(view), rows)


def test_caote_is_finite_where_one_token_has_all_attention_or_none_has(
    make_trace: MakeTrace,
) -> None:
    view = make_trace(tokens=6, layers=1).views[0]
    sums = torch.zeros(4, 6)
    assert CAOTE(H2O()).score(replace(view, column_sums=sums)).isfinite().all()
    sums[:, 2] = 1.0
    scores = CAOTE(H2O()).score(replace(view, column_sums=sums))
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
    assert CAOTE(SnapKV(window=5)).needs == Needs(queries=5)


def known(policy: CriticalKV, trace: Trace, weight: torch.Tensor) -> CriticalKV:
    object.__setattr__(policy, "_projections", [weight] * len(trace.layers))
    return policy


def naive_norms(values: Rows, weight: Rows, heads: range) -> list[float]:
    """Of one KV head: mean over its query heads of the L1 norms of projected values."""
    norms = []
    for value in values:
        total = 0.0
        for h in heads:
            total += sum(abs(sum(row[4 * h + x] * value[x] for x in range(4))) for row in weight)
        norms.append(total / len(heads))
    return norms


def naive_critical(
    scores: list[float], norms: list[float], budget: int, policy: CriticalKV, protected: set[int]
) -> list[int]:
    tokens = range(len(scores))
    first = max(int(policy.share * budget), len(protected))
    rest = sorted((j for j in tokens if j not in protected), key=lambda j: (-scores[j], j))
    pinned = protected | set(rest[: first - len(protected)])
    second = [(s + policy.epsilon) * n for s, n in zip(scores, norms, strict=True)]
    rest = sorted((j for j in tokens if j not in pinned), key=lambda j: (-second[j], j))
    return sorted(pinned | set(rest[: budget - len(pinned)]))


@pytest.mark.parametrize("budget", [3, 4, 7, 12])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_criticalkv_takes_half_by_score_and_the_rest_by_output(
    budget: int, share: float, make_trace: MakeTrace, keep: Keep, group: Callable[[int], range]
) -> None:
    trace = make_trace(tokens=12)
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    policy = known(CriticalKV(TOVA(), share=share, epsilon=0.01), trace, weight)
    scores = TOVA().score_all(trace.for_policy(TOVA().needs, NARROW)).tolist()
    expected = []
    for rows, layer in zip(scores, trace.layers, strict=True):
        norms = [naive_norms(layer.values[k].tolist(), weight.tolist(), group(k)) for k in range(2)]
        expected.append(
            [naive_critical(rows[k], norms[k], budget, policy, {0, 10, 11}) for k in range(2)]
        )
    assert keep(policy, trace, budget, Protection(sinks=1, recents=2)) == expected


def test_criticalkv_does_not_keep_what_it_learned_of_a_context(
    make_trace: MakeTrace, keep: Keep
) -> None:
    first, second = make_trace(tokens=12), make_trace(tokens=9, seed=5)
    policy = known(CriticalKV(H2O()), first, torch.randn(5, 16))
    kept = keep(policy, first, 6)
    keep(policy, second, 4)
    assert keep(policy, first, 6) == kept
    assert "_norms" not in vars(policy)


def test_it_is_informed_inside_another_wrapper(make_trace: MakeTrace, keep: Keep) -> None:
    trace = make_trace(tokens=12)
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    inner = known(CriticalKV(H2O(), share=0), trace, weight)
    kept, plain = keep(Ada(inner), trace, 6), keep(Ada(H2O()), trace, 6)
    assert [[len(head) for head in layer] for layer in kept] == [
        [len(head) for head in layer] for layer in plain
    ]
    assert kept != plain


def test_projections_are_the_models_own(runtime: Runtime) -> None:
    model = LoadedModel(source=runtime.source, module=runtime.model)
    found = output_projections(model)
    layers: Any = runtime.model.get_decoder().layers
    assert [each.data_ptr() for each in found] == [
        layer.self_attn.o_proj.weight.data_ptr() for layer in layers
    ]
    policy = CriticalKV(H2O())
    policy.prepare(model, 0)
    values = torch.randn(2, 7, 16)
    expected = []
    for h in range(4):
        alone = torch.zeros(7, 4, 16)
        alone[:, h] = values[h // 2]
        with torch.no_grad():
            expected.append(layers[0].self_attn.o_proj(alone.flatten(1)).abs().sum(dim=1))
    means = torch.stack([(expected[0] + expected[1]) / 2, (expected[2] + expected[3]) / 2])
    torch.testing.assert_close(output_norms(values, found[0]), means)


def test_only_the_projections_of_compressed_layers_count(runtime: Runtime) -> None:
    layers = [
        SimpleNamespace(self_attn=SimpleNamespace(o_proj=torch.nn.Linear(4, 4))) for _ in "abc"
    ]
    text = SimpleNamespace(layer_types=["sliding_attention", "full_attention", "sliding_attention"])
    module: Any = SimpleNamespace(
        get_decoder=lambda: SimpleNamespace(layers=layers),
        config=SimpleNamespace(get_text_config=lambda: text),
    )
    model = LoadedModel(source=runtime.source, module=module)
    (found,) = output_projections(model)
    assert found.data_ptr() == layers[1].self_attn.o_proj.weight.data_ptr()
    layers[1].self_attn = None
    with pytest.raises(ValueError, match=r"no self_attn.o_proj in its layers; choose a model"):
        output_projections(model)


def test_scores_below_zero_are_no_attention(make_trace: MakeTrace, keep: Keep) -> None:
    trace = make_trace()
    with pytest.raises(
        ValueError, match="caote takes scores for attention, and these go down to -"
    ):
        CAOTE(Knorm()).score_all(trace)
    with pytest.raises(ValueError, match="criticalkv takes scores for attention"):
        keep(known(CriticalKV(Knorm()), trace, torch.randn(5, 16)), trace, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CriticalKV(H2O(), share=1.5), "share=1.5: expected a share from 0 to 1"),
        (lambda: CriticalKV(H2O(), epsilon=-1), "epsilon=-1: expected a number from 0"),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], Policy], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
