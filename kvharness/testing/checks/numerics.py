"""Arithmetic that must not change what a policy says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from kvharness.testing.case import trace_of
from kvharness.testing.examples import PURE, examples
from kvharness.testing.mistake import Mistake
from kvharness.testing.reading import read
from kvharness.testing.subject import cases_for, ready
from kvharness.testing.tensors import LayerTensors, Texture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kvharness.policy.interface import Policy, ScoreFunction
    from kvharness.testing.case import Case

#: What sums in another order may differ by, relative to the largest score.
_ROUNDING = 1e-4
#: Attention of huge logits is one-hot: a rounding there can move all of it.
_SMOOTH = st.sampled_from([each for each in Texture if each is not Texture.HUGE])


def check_group_order(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """Permuting the query heads that share a KV head leaves its scores as they were.

    Raises:
        Mistake: names the KV head and token whose score changed.
    """
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy, texture=_SMOOTH), order=st.permutations(range(6)))
    def holds(case: Case, order: Sequence[int]) -> None:
        group = case.shape.heads // case.shape.kv_heads
        inside = [place for place in order if place < group]
        permuted = [_permuted(layer, case.shape.kv_heads, inside) for layer in case.tensors()]
        trace = trace_of(permuted, subject.needs)
        before, after = read(subject, case).scores, read(subject, case, trace=trace).scores
        _expect_close(before, after, f"when query heads swap places in their group ({inside})")

    holds()


def _permuted(layer: LayerTensors, kv_heads: int, inside: Sequence[int]) -> LayerTensors:
    def turned(tensor: Tensor) -> Tensor:
        grouped: Tensor = tensor.unflatten(0, (kv_heads, -1))
        return grouped[:, list(inside)].flatten(0, 1)

    return LayerTensors(
        queries=turned(layer.queries),
        keys=layer.keys,
        values=layer.values,
        future=turned(layer.future),
        similarity=layer.similarity,
    )


def check_query_chunks(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """The size of the steps in which the harness adds up attention leaves scores as they were.

    Raises:
        Mistake: names the KV head and token whose score changed by more than rounding.
    """
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy, texture=_SMOOTH), chunk=st.integers(1, 48))
    def holds(case: Case, chunk: int) -> None:
        trace = trace_of(case.tensors(), subject.needs, chunk=chunk)
        whole, parts = read(subject, case).scores, read(subject, case, trace=trace).scores
        _expect_close(whole, parts, f"when attention is added up {chunk} queries at a time")

    holds()


def _expect_close(before: Tensor | None, after: Tensor | None, told: str) -> None:
    if before is None or after is None:
        return
    apart = (before - after).abs() > _ROUNDING * (1e-6 + before.abs().max())
    for layer, head, token in apart.nonzero().tolist()[:1]:
        was, now = float(before[layer, head, token]), float(after[layer, head, token])
        raise Mistake(
            f"the score of token {token} in layer {layer}, KV head {head} is {was:.6g} and becomes "
            f"{now:.6g} {told}; treat the heads of a group alike (group_mean) and do not magnify "
            f"rounding"
        )
