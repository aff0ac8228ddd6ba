from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import LoadedModel, Protection, Trace
from kvharness.engine.select import score_tokens
from kvharness_policies.ada import Ada
from kvharness_policies.criticalkv import (
    CriticalKV,
    ProjectingCriticalKV,
    output_norms,
    output_projections,
)
from kvharness_policies.h2o import H2O
from kvharness_policies.tova import TOVA

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import Policy
    from kvharness.model.loaded import Runtime
    from tests.policies.conftest import Keep, MakeTrace, Rows


NARROW = ("1", "2", "3")


def known(policy: CriticalKV, trace: Trace, weight: torch.Tensor) -> CriticalKV:
    return ProjectingCriticalKV(**vars(policy), projections=(weight,) * len(trace.layers))


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
    scores = score_tokens(TOVA(), trace.for_policy(TOVA().needs, NARROW), name="tested").tolist()
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


def test_it_knows_the_context_inside_another_wrapper(make_trace: MakeTrace, keep: Keep) -> None:
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
    ready = CriticalKV(H2O(), share=0.25).ready(model, 0)
    assert isinstance(ready, ProjectingCriticalKV)
    assert ready.share == 0.25
    assert [p.data_ptr() for p in ready.projections] == [p.data_ptr() for p in found]
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
