"""What becomes of an observation that fails, and of those beside it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import AttentionCall, Observation, Observer, Queries, Reading
from kvharness.engine.item_run import run_item
from kvharness.engine.task import Failure
from kvharness.errors import ModelProblem
from kvharness.isolation.last_words import BlackBox
from kvharness.model.context_reading import prefill
from kvharness.records.record import Record
from tests.engine.test_item_run import make_item, make_setup, scripted
from tests.model.test_context_reading import CONTEXT, Reads, ValueSums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvharness.model.loaded import Runtime


@dataclass(frozen=True)
class Broken(Observation[Any]):
    """Does one thing wrong."""

    how: str

    @contextmanager
    def observing(self, reading: Reading) -> Iterator[Observer[Any]]:
        if self.how == "before":
            raise ValueError("before the pass")
        if self.how == "early":
            reading.layers  # noqa: B018 - it raises
        hooks = []
        if self.how in {"hook", "leaves"}:
            layers: Any = reading.model.get_decoder().layers
            does = self.hook if self.how == "hook" else lambda *_: None
            hooks = [layers[1].register_forward_hook(does) for _ in range(2)]
        try:
            nothing: Any = None
            yield nothing if self.how == "nothing" else BrokenObserver(self.how, reading)
        finally:
            for hook in hooks[self.how == "leaves" :]:
                hook.remove()
        if self.how == "after":
            raise ValueError("after the pass")

    def hook(self, *_: Any) -> None:
        raise ValueError("in a hook")


@dataclass
class BrokenObserver:
    how: str
    reading: Reading

    def attended(self, call: AttentionCall) -> None:
        if self.how == "attended":
            raise ValueError("while attending")
        if self.how == "exits":
            raise SystemExit(3)
        if self.how == "writes":
            call.key.zero_()
        if self.how == "dtype":
            torch.set_default_dtype(torch.float64)

    def found(self) -> Any:
        if self.how == "found":
            raise ValueError("at the end\nof two lines")
        if self.how == "peeks":
            return self.reading.ahead().attention
        if self.how == "memory":
            raise MemoryError
        if self.how == "none":
            return None
        return {0: 1.0} if self.how == "lacks" else dict.fromkeys(self.reading.layers, 1.0)


WRONG = {
    "before": r"ValueError: before the pass \(test_watch.py:\d+\)",
    "early": "reading.layers is there once the context was read: in found()",
    "hook": "its hook failed with ValueError: in a hook",
    "after": "ValueError: after the pass",
    "attended": "ValueError: while attending",
    "exits": "SystemExit: 3",
    "writes": "it changed the tensors of an attention call in place; clone them",
    "dtype": "it changed the default dtype from torch.float32 to torch.float64",
    "found": "ValueError: at the end",
    "peeks": "only an oracle knows what follows; Broken must declare future = True for that",
    "memory": "MemoryError",
    "lacks": "it found nothing of layer 1; found must have each of reading.layers",
    "none": "TypeError: found returned a NoneType, expected a dict from each of reading.layers",
    "nothing": "TypeError: observing yielded a NoneType without attended and found, expected an",
    "leaves": "it left 1 hooks on the model, which all policies share; remove them when its",
}


def plain_of(pattern: str) -> str:
    return pattern.replace("(", r"\(").replace(")", r"\)")


@pytest.mark.parametrize("how", WRONG)
def test_only_whoever_declares_it_fails(runtime: Runtime, how: str) -> None:
    item, setup = make_item(), make_setup(runtime)
    good, bad = scripted(Reads(), "good"), scripted(Reads(Broken(how)), "bad")
    also = scripted(Reads(Queries(2)), "also")
    (alone,) = (each for each in run_item(setup, item, [good]))
    results = {
        each.policy if isinstance(each, Record) else each.cell.policy: each
        for each in run_item(setup, item, [bad, good, also])
    }
    assert isinstance(alone, Record)
    assert isinstance(results["also"], Record)
    beside = results["good"]
    assert isinstance(beside, Record)
    assert beside.mask_digest == alone.mask_digest
    failed = results["bad"]
    assert isinstance(failed, Failure)
    expected = WRONG[how] if r"\d" in WRONG[how] else plain_of(WRONG[how])
    lead = rf"^Broken\(how='{how}'\) cannot be observed: "
    with pytest.raises(ModelProblem, match=lead + expected):
        raise ModelProblem(failed.reason)
    assert torch.get_default_dtype() is torch.float32
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in runtime.model.modules())


@dataclass(frozen=True)
class NoManager(Observation[float]):
    def observing(self, reading: Reading) -> Any:
        return BrokenObserver("-", reading)


@dataclass(frozen=True)
class NeverYields(Observation[float]):
    @contextmanager
    def observing(self, reading: Reading) -> Iterator[Observer[float]]:
        if not reading.context:
            yield BrokenObserver("-", reading)


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        (NoManager(), "TypeError: observing returned a BrokenObserver, expected a context manager"),
        (NeverYields(), "RuntimeError: generator didn't yield"),
    ],
)
def test_observing_is_a_context_manager(
    runtime: Runtime, observation: Observation[Any], reason: str
) -> None:
    (failed,) = run_item(make_setup(runtime), make_item(), [scripted(Reads(observation))])
    assert isinstance(failed, Failure)
    assert failed.reason.startswith(f"{observation} cannot be observed: {reason}")
    assert ".py:" not in failed.reason, "no place in a library"


def test_an_interrupt_ends_everything(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BrokenObserver, "attended", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"Broken\(how='-'\) was running"):
        list(run_item(make_setup(runtime), make_item(), [scripted(Reads(Broken("-")))]))


def test_a_model_that_fails_without_anyones_help_is_not_blamed_on_them(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the model broke")

    monkeypatch.setattr(type(runtime.model.get_decoder()), "forward", fails)
    with pytest.raises(RuntimeError, match="the model broke"):
        prefill(runtime, CONTEXT, frozenset({ValueSums()}))


def test_whoever_runs_is_named_if_the_process_dies(runtime: Runtime) -> None:
    box = NotedBox()
    setup = replace(make_setup(runtime), box=box)
    list(run_item(setup, make_item(), [scripted(Reads())]))
    assert "ValueSums(scale=1.0) on qa-s0-00" in box.doing


class NotedBox(BlackBox):
    def __init__(self) -> None:
        super().__init__()
        self.doing: list[str] = []

    @contextmanager
    def during(self, doing: str) -> Iterator[None]:
        self.doing.append(doing)
        yield
