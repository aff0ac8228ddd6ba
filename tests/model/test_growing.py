"""Observations between evictions: a stranger's that grows, and those that fail."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch

from kvharness import (
    AttentionCall,
    Capabilities,
    ColumnSums,
    Growth,
    Observation,
    Policy,
    Queries,
    Reading,
    Step,
    Stepping,
    View,
)
from kvharness.contract import EvictMode
from kvharness.engine.item_run import run_item
from kvharness.engine.task import Failure
from kvharness.model.context_reading import prefill
from kvharness.model.rolling_cache import HeldCache
from kvharness.records.record import Record
from tests.engine.test_item_run import CONTRACT, draw_ids, make_item, make_setup, scripted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from kvharness.model.loaded import Runtime

DECODING = replace(CONTRACT, evict=EvictMode.DECODE)
BLOCKS = replace(CONTRACT, evict=EvictMode.BLOCKS)
MODES = pytest.mark.parametrize("contract", [DECODING, BLOCKS], ids=["decode", "blocks"])


class Noting:
    def __init__(self) -> None:
        self.seen: dict[int, Tensor] = {}

    def attended(self, call: AttentionCall) -> None:
        _, heads, tokens, _ = call.query.shape
        self.seen[call.layer] = torch.arange(float(tokens)).repeat(heads, 1)

    def found(self) -> Mapping[int, Tensor]:
        return self.seen


@dataclass(frozen=True)
class Places(Observation["Tensor"]):
    """The place of each entry in the text, noted by a stranger: float32 ``[H, n]``."""

    grows: ClassVar[bool] = True
    wrong: str = ""

    @contextmanager
    def observing(self, reading: Reading) -> Iterator[Noting]:
        del reading
        yield Noting()

    def grow(self, before: Tensor | None, growth: Growth) -> Tensor:
        rows, group, new, _ = growth.query.shape
        if self.wrong == "raises":
            raise ValueError("it does not grow")
        if self.wrong == "rows":
            return torch.zeros(rows + 1, group, 3)
        if self.wrong == "list":
            return []  # type: ignore[return-value]
        held = 0 if before is None else before.shape[-1]
        last = float(growth.positions.max()) + 1
        added = torch.arange(last - new, last).expand(rows, group, new)
        if before is None:
            return added
        assert growth.keys.shape[1] == held + new
        return torch.cat((before, added), dim=-1)

    def evict(self, value: Tensor, index: Tensor) -> Tensor:
        if self.wrong == "evict":
            raise ValueError("it does not go")
        return super().evict(value, index)


@dataclass(frozen=True)
class Follows(Policy, Stepping):
    """Keeps what its observation scores highest; it and the engine must agree on what is where."""

    observation: Observation[Any] = Places()
    capabilities = Capabilities(decodes=True, blocks=True)

    @property
    def needs(self) -> frozenset[Observation[Any]]:
        return frozenset({self.observation})

    def score(self, view: View) -> Tensor:
        places = view[self.observation]
        if not isinstance(self.observation, Places):
            return torch.zeros(view.kv_heads, view.tokens)
        heads: Tensor = (places * 7 % 5).unflatten(0, (view.kv_heads, -1))
        return heads.mean(dim=1)

    def step(self, step: Step) -> Tensor:
        if isinstance(self.observation, Places):
            held = step.view[self.observation].unflatten(0, (step.view.kv_heads, -1))
            assert torch.equal(held[:, 0].long(), step.positions)
        return self.score(step.view)


@MODES
def test_what_a_stranger_observes_follows_the_entries(runtime: Runtime, contract: Any) -> None:
    tasks = [scripted(Follows(), retention=Fraction(1, 2))]
    (result,) = run_item(make_setup(runtime, contract), make_item(), tasks)
    assert isinstance(result, Record), result.reason


REASONS = {
    "raises": "ValueError: it does not grow",
    "rows": "ValueError: a tensor [",
    "list": "TypeError: a list came, expected a tensor [R, G, ...]",
    "evict": "ValueError: it does not go",
}


@pytest.mark.parametrize(
    ("contract", "wrong"),
    [
        *((DECODING, wrong) for wrong in REASONS),
        # Of a single block nobody sees what is left of it.
        *((BLOCKS, wrong) for wrong in REASONS if wrong != "evict"),
    ],
)
def test_only_whoever_declares_it_fails(runtime: Runtime, contract: Any, wrong: str) -> None:
    good, bad = scripted(Follows(), "good"), scripted(Follows(Places(wrong=wrong)), "bad")
    setup = make_setup(runtime, contract)
    (alone,) = run_item(setup, make_item(), [good])
    failed, beside = sorted(
        run_item(setup, make_item(), [bad, good]), key=lambda each: isinstance(each, Record)
    )
    assert isinstance(alone, Record)
    assert isinstance(beside, Record)
    assert beside.metrics == pytest.approx(alone.metrics, rel=1e-4)
    assert isinstance(failed, Failure)
    assert failed.reason.startswith(f"Places(wrong='{wrong}') cannot be observed: {REASONS[wrong]}")


@dataclass(frozen=True)
class Still(Places):
    """Says that it grows, and does not say how."""

    grow = Observation.grow


@MODES
def test_growing_must_be_written(runtime: Runtime, contract: Any) -> None:
    (failed,) = run_item(make_setup(runtime, contract), make_item(), [scripted(Follows(Still()))])
    assert isinstance(failed, Failure)
    assert "it says that it grows, so it must implement grow(before, growth)" in failed.reason


@dataclass(frozen=True)
class Whole(Places):
    """Of a whole context only."""

    grows: ClassVar[bool] = False


@MODES
def test_what_does_not_grow_is_not_there_on_the_way(runtime: Runtime, contract: Any) -> None:
    (failed,) = run_item(make_setup(runtime, contract), make_item(), [scripted(Follows(Whole()))])
    assert isinstance(failed, Failure)
    assert "this view carries no Whole(wrong=''); declare needs" in failed.reason
    assert "it is never there between evictions" in failed.reason


def test_a_fork_goes_on_alone(runtime: Runtime) -> None:
    needs = frozenset[Observation[Any]]({Places(wrong="raises"), ColumnSums(), Queries(3)})
    prefilled, _ = prefill(runtime, draw_ids(12, 0), needs)
    cache = HeldCache(1, needs=needs, whole=prefilled)
    cache.hold(prefilled, [prefilled.all_kept()])
    other = cache.fork()
    query, key = torch.randn(1, 4, 1, 16), torch.randn(1, 2, 1, 16)
    other.expect(1)
    other.attend(AttentionCall(layer=0, query=query, key=key, value=key, scaling=0.25, window=None))
    assert list(other.growing.problems) == [Places(wrong="raises")]
    assert cache.growing.problems == {}
    assert other.layers[0].observed[ColumnSums()].shape == (2, 2, 13)
    assert cache.layers[0].observed[ColumnSums()].shape == (2, 2, 12)
    assert Places(wrong="raises") in cache.layers[0].observed
