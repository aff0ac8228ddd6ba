from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from kvharness import LoadedModel, Protection, Queries, Trace
from kvharness.model.context_reading import prefill
from kvharness_policies.expected_attention import (
    ExpectedAttention,
    RotatingExpectedAttention,
    rotary_frequencies,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness import View
    from kvharness.model.loaded import Runtime
    from tests.conftest import MakePair
    from tests.policies.conftest import MakeTrace, Rows

#: Radians a position of the two planes of a head of size 4.
FREQUENCIES = (1.0, 0.1)
POLICIES = [
    ExpectedAttention(),
    ExpectedAttention(sinks=0, horizon=1),
    ExpectedAttention(sinks=2, horizon=5, covariance=False, epsilon=0.5),
    ExpectedAttention(sinks=1, horizon=3, value_norm=False),
]


def ready(policy: ExpectedAttention) -> RotatingExpectedAttention:
    return RotatingExpectedAttention(**vars(policy), frequencies=torch.tensor(FREQUENCIES))


def rotation(position: float) -> Rows:
    """The matrix that RoPE multiplies a vector of 4 with; planes are (0, 2) and (1, 3)."""
    matrix = [[0.0] * 4 for _ in range(4)]
    for plane, frequency in enumerate(FREQUENCIES):
        cos, sin = math.cos(position * frequency), math.sin(position * frequency)
        matrix[plane][plane] = matrix[plane + 2][plane + 2] = cos
        matrix[plane][plane + 2], matrix[plane + 2][plane] = -sin, sin
    return matrix


def times(one: Rows, two: Rows) -> Rows:
    return [
        [sum(a * b for a, b in zip(r, c, strict=True)) for c in zip(*two, strict=True)] for r in one
    ]


def turned(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]


def naive_logits(
    queries: Rows, keys: Rows, scaling: float, policy: ExpectedAttention
) -> list[float]:
    """Of one query head, for the keys beyond the sinks."""
    tokens = len(queries)
    plain = [
        [row[0] for row in times(rotation(-j), [[x] for x in queries[j]])]
        for j in range(policy.sinks, tokens)
    ]
    mean = [sum(column) / len(plain) for column in zip(*plain, strict=True)]
    apart = [[x - m for x, m in zip(row, mean, strict=True)] for row in plain]
    spread = [[x / len(plain) for x in row] for row in times(turned(apart), apart)]
    ahead = [rotation(tokens + t) for t in range(policy.horizon)]
    average = [[sum(m[a][b] for m in ahead) / len(ahead) for b in range(4)] for a in range(4)]
    mean = [row[0] for row in times(average, [[x] for x in mean])]
    spread = times(times(average, spread), turned(average))
    logits = []
    for key in keys[policy.sinks :]:
        logit = scaling * sum(a * b for a, b in zip(key, mean, strict=True))
        if policy.covariance:
            logit += scaling**2 / 2 * times(times([key], spread), [[x] for x in key])[0][0]
        logits.append(logit)
    return logits


def naive(view: View, head: int, policy: ExpectedAttention) -> list[float]:
    """Scores of a KV head."""
    assert view.queries is not None
    tokens, keys, values = view.tokens, view.keys[head].tolist(), view.values[head].tolist()
    if tokens <= policy.sinks:
        return [0.0] * tokens
    mean = [0.0] * (tokens - policy.sinks)
    for h in (2 * head, 2 * head + 1):
        logits = naive_logits(view.queries[h].tolist(), keys, view.scaling, policy)
        total = sum(math.exp(z) for z in logits)
        mean = [m + math.exp(z) / total / 2 for m, z in zip(mean, logits, strict=True)]
    if policy.value_norm:
        norms = [math.hypot(*value) for value in values[policy.sinks :]]
        mean = [(m + policy.epsilon) * norm for m, norm in zip(mean, norms, strict=True)]
    return [0.0] * policy.sinks + mean


@pytest.mark.parametrize("policy", POLICIES)
def test_scores_are_sound(
    policy: ExpectedAttention, check_scores: Callable[[ExpectedAttention], None]
) -> None:
    check_scores(ready(policy))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("tokens", [1, 4, 5, 11])
def test_scores_equal_the_naive_ones(
    policy: ExpectedAttention, tokens: int, make_trace: MakeTrace
) -> None:
    for view in make_trace(tokens=tokens).views:
        scores = ready(policy).score(view)
        expected = torch.tensor([naive(view, head, policy) for head in range(2)])
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)


def test_queries_are_turned_back_to_what_the_model_projected(
    runtime: Runtime,
) -> None:
    model = LoadedModel(source=runtime.source, module=runtime.model)
    policy = ExpectedAttention().ready(model, 0)
    projected: list[torch.Tensor] = []
    layers: Any = runtime.model.get_decoder().layers
    hooks = [
        layer.self_attn.q_proj.register_forward_hook(lambda _m, _i, out: projected.append(out[0]))
        for layer in layers
    ]
    context, _ = prefill(runtime, range(2, 60), policy.needs)
    for hook in hooks:
        hook.remove()
    assert len(projected) == len(context.layers) == 2
    trace = Trace(layers=tuple(context.layers.values()), positions=torch.arange(58))
    for view, rows in zip(trace.views, projected, strict=True):
        expected = rows.unflatten(1, (4, 16)).transpose(0, 1)
        torch.testing.assert_close(policy.unrotated(view), expected, rtol=1e-4, atol=1e-5)
        assert view.queries is not None
        assert not torch.allclose(view.queries, expected, atol=1e-2)


def test_frequencies_are_the_models_own(runtime: Runtime) -> None:
    found = rotary_frequencies(runtime.model)
    torch.testing.assert_close(found, 10_000.0 ** (-torch.arange(8) / 8))


def test_models_whose_queries_cannot_be_turned_back_are_refused() -> None:
    class Bare:
        rotary_emb = None

    odd = cast("Any", SimpleNamespace(get_decoder=Bare))
    with pytest.raises(ValueError, match="no rotary embedding that queries can be turned back"):
        rotary_frequencies(odd)


@pytest.mark.parametrize("without", [[], [1]])
def test_layers_without_rope_are_refused(make_pair: MakePair, without: list[int]) -> None:
    from transformers import SmolLM3Config

    values: dict[str, Any] = {
        "vocab_size": 1502,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.4,
        "pad_token_id": 1,
        "no_rope_layers": [int(layer not in without) for layer in range(3)],
    }
    _, runtime = make_pair(SmolLM3Config(**values))
    model = LoadedModel(source=runtime.source, module=runtime.model)
    policy = ExpectedAttention()
    if not without:
        assert policy.ready(model, 0).frequencies.shape == (4,)
        return
    with pytest.raises(ValueError, match="keys of the layers 1 of SmolLM3ForCausalLM do not turn"):
        policy.ready(model, 0)


def test_it_needs_all_queries_and_protects_its_sinks(make_trace: MakeTrace) -> None:
    policy = ExpectedAttention(sinks=3)
    assert policy.protect(20, 10) == Protection(sinks=3, recents=0)
    assert policy.needs == frozenset({Queries(1 << 30)})
    view = replace(make_trace().views[0], observed={})
    with pytest.raises(ValueError, match=r"declare needs = frozenset\({Queries\(count=10737"):
        ready(policy).score(view)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExpectedAttention(sinks=-1), "sinks=-1: expected 0 or more"),
        (lambda: ExpectedAttention(horizon=0), "horizon=0: expected 1 or more"),
        (lambda: ExpectedAttention(epsilon=-1), "epsilon=-1: expected a number from 0"),
    ],
)
def test_impossible_parameters_are_refused(
    make: Callable[[], ExpectedAttention], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()
