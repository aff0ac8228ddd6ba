"""What anyone may observe of a context."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch

from kvharness import (
    AttentionCall,
    ColumnSums,
    Future,
    Observation,
    Observer,
    Policy,
    Queries,
    Reading,
    View,
    afterwards,
)
from kvharness.engine.item_run import run_item
from kvharness.errors import ModelProblem
from kvharness.model.context_reading import prefill
from kvharness.records.record import Record
from tests.conftest import tiny_config
from tests.engine.test_item_run import draw_ids, make_item, make_setup, scripted
from tests.model.test_attention import WINDOW, make_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.model.loaded import Runtime
    from tests.conftest import MakePair

CONTEXT = draw_ids(24, 3)


class Noted:
    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.sums: dict[int, Tensor] = {}

    def attended(self, call: AttentionCall) -> None:
        self.sums[call.layer] = self.scale * call.value[0].float().sum(dim=-1)

    def found(self) -> Mapping[int, Tensor]:
        return self.sums


@dataclass(frozen=True)
class ValueSums(Observation["Tensor"]):
    """What a stranger notes of each layer: scaled sums over the numbers of a value, ``[K, n]``."""

    scale: float = 1.0
    made: ClassVar[list[float]] = []

    @contextmanager
    def observing(self, reading: Reading) -> Iterator[Observer[Tensor]]:
        del reading
        self.made.append(self.scale)
        yield Noted(self.scale)


@dataclass(frozen=True)
class Saliency(Observation["Tensor"]):
    """How much the probability of what the model says next hangs on each value, ``[K, n]``.

    The sum over its numbers of gradient times value, of the log-probability.
    """

    def observing(self, reading: Reading) -> Any:
        return afterwards(lambda: self._found(reading))

    def _found(self, reading: Reading) -> dict[int, Tensor]:
        changes: dict[int, Tensor] = {}
        values: dict[int, Tensor] = {}

        def through(call: AttentionCall) -> AttentionCall:
            changes[call.layer] = torch.zeros_like(call.value).requires_grad_()
            values[call.layer] = call.value.detach()
            return replace(call, value=call.value + changes[call.layer])

        logprobs = reading.again(through)[-1].float().log_softmax(dim=-1)
        gradients = torch.autograd.grad(logprobs.max(), list(changes.values()))
        return {
            layer: (gradient * values[layer])[0].sum(dim=-1)
            for layer, gradient in zip(changes, gradients, strict=True)
        }


@dataclass(frozen=True)
class Reads(Policy):
    """Scores with what an observation found, or evenly if it has no row for each KV head."""

    observation: Observation[Any] = ValueSums()

    @property
    def needs(self) -> frozenset[Observation[Any]]:
        return frozenset({self.observation})

    def score(self, view: View) -> Tensor:
        found = view[self.observation]
        if isinstance(found, torch.Tensor) and found.shape == (view.kv_heads, view.tokens):
            return found.float()
        return torch.zeros(view.kv_heads, view.tokens)


def observed(
    runtime: Runtime, observation: Observation[Any], context: Sequence[int] = CONTEXT
) -> list[Any]:
    prefilled, _ = prefill(runtime, context, frozenset({observation}))
    prefilled.observing_seconds(frozenset({observation}))
    return [layer.observed[observation] for layer in prefilled.layers.values()]


def naive_values(plain: PreTrainedModel) -> tuple[list[Tensor], Tensor]:
    """What ``v_proj`` of each layer gives, with gradients, and the last logits."""
    values: list[Tensor] = []

    def note(_module: Any, _given: Any, output: Tensor) -> None:
        output.retain_grad()
        values.append(output)

    layers: Any = plain.get_decoder().layers
    hooks = [layer.self_attn.v_proj.register_forward_hook(note) for layer in layers]
    logits = plain(torch.tensor([CONTEXT]), use_cache=False).logits[0, -1]
    for hook in hooks:
        hook.remove()
    return values, logits


def by_head(values: Tensor, size: int) -> Tensor:
    """``[1, n, K d]`` to sums ``[K, n]``."""
    heads: Tensor = values[0].unflatten(-1, (-1, size))
    return heads.sum(dim=-1).T


@pytest.fixture(scope="module")
def pair(make_pair: MakePair) -> tuple[PreTrainedModel, Runtime]:
    return make_pair(tiny_config())


def test_a_stranger_notes_what_it_sees(pair: tuple[PreTrainedModel, Runtime]) -> None:
    plain, runtime = pair
    values, _ = naive_values(plain)
    found = observed(runtime, ValueSums(2.0))
    assert len(found) == len(values) == 2
    for mine, naive in zip(found, values, strict=True):
        size = int(plain.config.head_dim)
        torch.testing.assert_close(mine, 2 * by_head(naive, size), rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_autograd(pair: tuple[PreTrainedModel, Runtime]) -> None:
    plain, runtime = pair
    size = int(plain.config.head_dim)
    learning = [each.requires_grad for each in runtime.model.parameters()]
    found = observed(runtime, Saliency())
    with torch.enable_grad():
        values, logits = naive_values(plain)
        logits.float().log_softmax(dim=-1).max().backward()
    for mine, naive in zip(found, values, strict=True):
        assert naive.grad is not None
        expected = by_head(naive.grad * naive.detach(), size)
        assert expected.abs().max() > 1e-6, "a gradient to be seen"
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-7)
        assert not mine.requires_grad
    assert [each.requires_grad for each in runtime.model.parameters()] == learning
    assert not any(each.grad is not None for each in runtime.model.parameters())


def test_a_policy_scores_with_gradients(runtime: Runtime) -> None:
    reads, other = scripted(Reads(Saliency())), scripted(Reads(ValueSums()), "other")
    one, two = run_item(make_setup(runtime), make_item(), [reads, other])
    assert isinstance(one, Record)
    assert isinstance(two, Record)
    assert one.mask_digest != two.mask_digest


def test_equal_observations_are_made_once(runtime: Runtime) -> None:
    ValueSums.made.clear()
    tasks = [scripted(Reads(ValueSums(scale)), f"p{n}") for n, scale in enumerate((1.0, 1.0, 2.0))]
    assert all(
        isinstance(each, Record) for each in run_item(make_setup(runtime), make_item(), tasks)
    )
    assert sorted(ValueSums.made) == [1.0, 2.0]


@dataclass(frozen=True)
class Timed(Observation[float]):
    """Takes so long once the context was read."""

    seconds: float
    now: ClassVar[list[float]] = [0.0]

    def observing(self, reading: Reading) -> Any:
        def found() -> dict[int, float]:
            self.now[0] += self.seconds
            return dict.fromkeys(reading.layers, self.seconds)

        return afterwards(found)


def test_what_is_made_after_the_pass_counts_as_selecting(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvharness.model.loaded.Runtime.clock", lambda _: Timed.now[0])
    needs = frozenset[Observation[Any]]({Timed(3.0), Timed(4.0), Queries(2)})
    prefilled, seconds = prefill(runtime, CONTEXT, needs)
    assert seconds == 0.0
    assert prefilled.observing_seconds(frozenset({Timed(3.0)})) == 3.0
    assert prefilled.observing_seconds(frozenset({Timed(3.0), Timed(4.0)})) == 7.0
    assert prefilled.observing_seconds(frozenset({Queries(2)})) == 0.0


# -- what follows in truth ------------------------------------------------------------------------


@dataclass(frozen=True)
class Cheat(Observation["Tensor"]):
    """An oracle of a stranger: which ids of the context the questions and answers name."""

    future: ClassVar[bool] = True

    def observing(self, reading: Reading) -> Any:
        def found() -> dict[int, Tensor]:
            named = {each for prompt in reading.ahead().prompts for each in prompt}
            marks = torch.tensor([float(each in named) for each in reading.context])
            return dict.fromkeys(reading.layers, marks)

        return afterwards(found)


def test_an_oracle_knows_questions_and_answers(runtime: Runtime) -> None:
    item = make_item()
    due = {each for q in item.questions for each in (*q.question, *q.tail, *q.answer)}
    context = (*sorted(due)[:3], *item.context[3:])
    seen: list[Tensor] = []

    class Watches(Reads):
        def score(self, view: View) -> Tensor:
            seen.append(view[self.observation])
            return super().score(view)

    item = replace(item, context=context)
    results = list(run_item(make_setup(runtime), item, [scripted(Watches(Cheat()))]))
    assert all(isinstance(each, Record) for each in results)
    assert seen[0].tolist() == [float(each in due) for each in context]


def test_the_future_of_a_stranger_is_that_of_the_oracle(runtime: Runtime) -> None:
    @dataclass(frozen=True)
    class Attended(Observation["Tensor"]):
        future: ClassVar[bool] = True

        def observing(self, reading: Reading) -> Any:
            return afterwards(lambda: reading.ahead().attention)

    pairs: list[bool] = []

    @dataclass(frozen=True)
    class Both(Policy):
        needs = frozenset[Observation[Any]]({Attended(), Future(), ColumnSums()})

        def score(self, view: View) -> Tensor:
            pairs.append(torch.equal(view[Attended()], view[Future()]))
            return torch.zeros(view.kv_heads, view.tokens)

    list(run_item(make_setup(runtime), make_item(), [scripted(Both())]))
    assert pairs == [True, True]


def test_a_model_that_only_slides_is_refused(make_pair: MakePair) -> None:
    _, runtime = make_pair(make_config("mistral", sliding_window=WINDOW))
    with pytest.raises(ModelProblem, match="every attention layer of made slides over a window"):
        prefill(runtime, CONTEXT)


def test_without_questions_nothing_follows(runtime: Runtime) -> None:
    needs = frozenset({Future()})
    prefilled, _ = prefill(runtime, CONTEXT, needs)
    with pytest.raises(ModelProblem, match="nothing is asked here, so nothing is known"):
        prefilled.observing_seconds(needs)
