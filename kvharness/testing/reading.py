"""Running a policy through the harness while noting what each of its stages returned."""

from __future__ import annotations

import copy
import random
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kvharness.engine.select import score_tokens, select_entries
from kvharness.isolation.torch_settings import kept
from kvharness.policy.interface import Policy
from kvharness.testing.reads import SCORING, noted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kvharness.contract import Protection
    from kvharness.policy.trace import Trace
    from kvharness.testing.case import Case

STAGES = ("score", "protect", "allocate", "select")


@dataclass(slots=True)
class Reading:
    """What a policy did, whether or not the harness accepted it.

    Attributes:
        returned: what each stage returned, in order; tensors are copies.
        stage: the last stage that was called.
        problem: what the policy raised, or the harness's refusal; None when all went well.
        scores: verified scores; None when they were refused.
        mask: a copy of the verified keep mask, bool ``[layers, K, n]``; None when refused.
        given: the mask itself as the engine gets it.
        changed: torch's settings that it left changed; they are put back.
        generators: where the global generators stood at the end, by the module that owns them.
    """

    returned: dict[str, list[Any]] = field(default_factory=dict)
    stage: str = ""
    problem: BaseException | None = None
    scores: Tensor | None = None
    mask: Tensor | None = None
    given: Tensor | None = None
    changed: list[str] = field(default_factory=list)
    generators: dict[str, object] = field(default_factory=dict)

    def last(self, stage: str) -> Any:
        """What a stage returned last, None when it never did."""
        return self.returned.get(stage, [None])[-1]

    @property
    def all_scores(self) -> list[Any]:
        """What `score` returned, layer by layer."""
        return self.returned.get("score", [])

    @property
    def reason(self) -> str:
        """The problem in one line."""
        text = str(self.problem).splitlines()
        return f"{type(self.problem).__name__}: {text[0] if text else ''}"


def read(policy: Policy, case: Case, *, trace: Trace | None = None, luck: int = 0) -> Reading:
    """Run a fresh copy of a policy on a case; see `read_as_is`.

    ``trace`` replaces the case's own; ``luck`` seeds the global generators.
    """
    shown = case.trace(policy.needs) if trace is None else trace
    return read_as_is(copied(policy), shown, case.budget, case.protection, luck=luck)


def read_as_is(
    policy: Policy, trace: Trace, budget: int, protection: Protection, *, luck: int = 0
) -> Reading:
    """Score and select as the engine does, with this very policy object.

    Global generators are seeded and torch's settings put back, so that only the checks that are
    about them see their use.
    """
    reading = Reading()
    watched = _watched(policy, reading)
    with torch.no_grad(), global_seed(luck), kept() as reading.changed, noted(policy, SCORING):
        try:
            reading.scores = score_tokens(watched, trace, name="policy")
            scores = reading.scores.clone()
            reading.given = select_entries(
                watched, trace, scores, budget, protection, name="policy"
            )
            reading.mask = reading.given.clone()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as problem:  # noqa: BLE001 - sys.exit and skips are findings too
            reading.problem = problem
        reading.generators = _generators()
    return reading


def _generators() -> dict[str, object]:
    numbers = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 - that one
    return {
        "random": random.getstate(),
        "numpy.random": (numbers["key"].tobytes(), numbers["pos"]),
        "torch": torch.default_generator.get_state().numpy().tobytes(),
    }


def copied(policy: Policy) -> Policy:
    """A copy that shares no state, or the policy itself where it cannot be copied."""
    try:
        return copy.deepcopy(policy)
    except Exception:  # noqa: BLE001 - locks, open files and the like
        return policy


def _watched(policy: Policy, reading: Reading) -> Policy:
    """A shallow twin of another class, whose stages note what they return.

    A subclass rather than a wrapper: the harness asks for the class to see what is overridden.
    Attributes are shared with the original, so state that a policy keeps stays with it.
    """
    kind = type(policy)
    namespace: dict[str, Any] = {name: _noting(kind, name, reading) for name in STAGES}
    twin: Policy = object.__new__(type(kind.__name__, (kind,), {"__slots__": (), **namespace}))
    _share(policy, twin)
    return twin


def _share(policy: Policy, twin: Policy) -> None:
    if hasattr(policy, "__dict__"):
        object.__setattr__(twin, "__dict__", policy.__dict__)
    for kind in type(policy).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if hasattr(policy, name):
                object.__setattr__(twin, name, getattr(policy, name))


def _noting(kind: type[Policy], stage: str, reading: Reading) -> Any:
    def noting(self: Policy, *arguments: Any) -> Any:
        reading.stage = stage
        result = getattr(kind, stage)(self, *arguments)
        noted = result.clone() if isinstance(result, torch.Tensor) else result
        reading.returned.setdefault(stage, []).append(noted)
        return result

    return noting


def overrides(policy: Policy, name: str) -> bool:
    """Whether a policy's class has a method of its own."""
    return getattr(type(policy), name) is not getattr(Policy, name)


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators, and give them back afterwards."""
    draws = torch.default_generator
    before = random.getstate(), np.random.get_state(), draws.get_state()  # noqa: NPY002 - that one
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    # Not torch.manual_seed, which formats a stack trace at every call.
    draws.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        draws.set_state(before[2])
