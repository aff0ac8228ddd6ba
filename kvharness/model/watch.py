"""The code of observations at work: each has problems of its own, and never those of others."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from kvharness.errors import KvharnessError, ModelProblem
from kvharness.model.out_of_memory import is_lack, too_large
from kvharness.model.prefilled import Observing

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from kvharness.policy.observation.base import Observation
    from kvharness.policy.observation.reading import AttentionCall, Observer, Reading

    #: Entered around the code of an observation, which is its argument.
    Guard = Callable[[Observation[Any]], AbstractContextManager[object]]

    _Hook = tuple[dict[int, Any], int]

R = TypeVar("R")
_OBSERVER = ("attended", "found")


@dataclass(frozen=True, slots=True)
class Unseen:
    """Why an observation could not be made."""

    problem: ModelProblem


def attempted(
    observation: Observation[Any], action: Callable[[], R], guard: Guard, device: torch.device
) -> R | Unseen:
    """What an observation's code returns, or its problem; only an interrupt is raised."""
    try:
        with guard(observation):
            return action()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - also sys.exit: a stranger's code
        return Unseen(_problem(observation, _reason(error, device)))


def _reason(error: BaseException, device: torch.device) -> str:
    if isinstance(error, Exception) and is_lack(error):
        return str(too_large(device, "in the meantime"))
    known = isinstance(error, KvharnessError)
    return (f"{error}" if known else f"{type(error).__name__}: {error}").splitlines()[0]


def _problem(observation: Observation[Any], reason: str) -> ModelProblem:
    return ModelProblem(f"{observation} cannot be observed: {reason}")


class SpoiledError(Exception):
    """An observation spoiled the pass for all others: it is to be made without it."""

    def __init__(self, observation: Observation[Any], reason: str) -> None:
        super().__init__(reason)
        self.observation = observation
        self.problem = _problem(observation, reason)


class Watch:
    """One observation during one pass; its first problem ends it."""

    def __init__(
        self, observation: Observation[Any], context: Reading, runtime: Runtime, guard: Guard
    ) -> None:
        self.observation = observation
        self._context = context
        self._runtime = runtime
        self._guard = guard
        self._stack = ExitStack()
        self._observer: Observer[Any] | None = None
        self._hooks: list[_Hook] = []
        self._problem: ModelProblem | None = None

    def enter(self) -> None:
        there = {(id(hooks), name) for hooks, name in _hooks(self._runtime.model)}
        self._observer = self._tried(self._entered)
        self._hooks = [
            (hooks, name)
            for hooks, name in _hooks(self._runtime.model)
            if (id(hooks), name) not in there
        ]

    def _entered(self) -> Observer[Any]:
        manager = self.observation.observing(self._context)
        if not isinstance(manager, AbstractContextManager):
            raise TypeError(
                f"observing returned a {type(manager).__name__}, expected a context manager that "
                f"yields an observer: write @contextmanager above it"
            )
        observer = self._stack.enter_context(manager)
        lacking = [name for name in _OBSERVER if not callable(getattr(observer, name, None))]
        if lacking:
            raise TypeError(
                f"observing yielded a {type(observer).__name__} without {' and '.join(lacking)}, "
                f"expected an observer with attended(call) and found()"
            )
        return observer

    def leave(self) -> None:
        self._tried(self._stack.close)
        self._tried(self._put_back)

    def _put_back(self) -> None:
        left = [(hooks, name) for hooks, name in self._hooks if name in hooks]
        for hooks, name in left:
            del hooks[name]
        if left:
            raise ModelProblem(
                f"it left {len(left)} hooks on the model, which all policies share; remove them "
                f"when its context manager ends"
            )

    def attended(self, call: AttentionCall) -> None:
        observer = self._observer
        if observer is None or self._problem is not None:
            return
        before = _versions(call)
        self._tried(lambda: observer.attended(call))
        if _versions(call) != before:
            raise SpoiledError(
                self.observation, "it changed the tensors of an attention call in place; clone them"
            )

    def found(self, prefilled: Prefilled) -> tuple[Mapping[int, Any], Observing]:
        """What it made of each compressed layer, and how that went; nothing if it failed."""
        clock = self._runtime.clock
        start = clock()
        values = None
        if self._problem is None:
            with torch.enable_grad():
                values = self._tried(lambda: self._values(prefilled))
        seconds = clock() - start
        return values or {}, Observing(seconds=seconds, problem=self._problem)

    def _values(self, prefilled: Prefilled) -> dict[int, Any]:
        assert self._observer is not None  # noqa: S101 - without one there is a problem
        found = self._observer.found()
        if not isinstance(found, Mapping):
            raise TypeError(
                f"found returned a {type(found).__name__}, expected a dict from each of "
                f"reading.layers to what it made of it"
            )
        lacking = [str(layer) for layer in prefilled.layers if layer not in found]
        if lacking:
            raise ModelProblem(
                f"it found nothing of layer {', '.join(lacking)}; found must have each of "
                f"reading.layers"
            )
        return {layer: found[layer] for layer in prefilled.layers}

    def _tried(self, action: Callable[[], R]) -> R | None:
        found = attempted(self.observation, action, self._guard, self._runtime.device)
        if isinstance(found, Unseen):
            self._problem = self._problem or found.problem
            return None
        return found


def _hooks(model: PreTrainedModel) -> list[_Hook]:
    """Every forward hook there is: the dict that holds it, and its name there."""
    return [
        (hooks, name)
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)  # noqa: SLF001 - no others
        for name in hooks
    ]


def _versions(call: AttentionCall) -> list[int]:
    """Torch's counters of in-place changes."""
    return [each._version for each in (call.query, call.key, call.value)]  # noqa: SLF001
