"""A policy made ready for checking: with a model if it learns something of one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from kvharness.discovery.declared import made_ready, misdeclared
from kvharness.errors import PolicyProblem, TrainingProblem
from kvharness.isolation.torch_settings import kept
from kvharness.policy.interface import FunctionPolicy, LoadedModel, Policy
from kvharness.testing.case import Case
from kvharness.testing.mistake import Mistake
from kvharness.testing.model import MODEL_SHAPE, TinyModel
from kvharness.testing.reading import copied, overrides
from kvharness.testing.reads import READY, noted
from kvharness.testing.strategies import LONGEST, cases, lengths
from kvharness.testing.tensors import Shape, Texture

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from kvharness.policy.interface import ScoreFunction


def ready(given: Policy | ScoreFunction) -> Policy:
    """The policy that scores: a function is wrapped, and one that learns is asked for its own.

    Raises:
        Mistake: `ready` raised, or returned what it must not.
        TypeError: neither a policy nor a function.
    """
    policy = as_given(given)
    return ready_on(policy, TinyModel.of(MODEL_SHAPE))[0] if learns(policy) else policy


def learns(policy: Policy) -> bool:
    """Whether a policy must get ready for a model."""
    return overrides(policy, "ready")


def as_given(given: object) -> Policy:
    """The policy itself, or the one that a score function makes."""
    if isinstance(given, Policy):
        if wrong := misdeclared(given):
            raise TypeError(f"{type(given).__name__}: {wrong}")
        return given
    if callable(given) and not isinstance(given, type):
        return FunctionPolicy(function=cast("ScoreFunction", given))
    raise TypeError(f"{given!r}: expected a policy, such as SnapKV(), or a function score(view)")


def ready_on(policy: Policy, model: TinyModel) -> tuple[Policy, TinyModel]:
    """The policy that scores on a copy of a model, and that copy; both as they were by default.

    Raises:
        Mistake: `ready` raised, or returned what it must not.
    """
    return _made_ready(policy, model)[:2] if learns(policy) else (policy, model)


def changed_by_ready(given: Policy | ScoreFunction) -> list[str]:
    """Which of torch's settings `ready` leaves changed.

    Raises:
        Mistake: `ready` raised, or returned what it must not.
    """
    policy = as_given(given)
    return _made_ready(policy, TinyModel.of(MODEL_SHAPE))[2] if learns(policy) else []


def _made_ready(policy: Policy, model: TinyModel) -> tuple[Policy, TinyModel, list[str]]:
    place = copy.deepcopy(model)
    loaded = LoadedModel(source=place.runtime.source, module=place.runtime.model)
    try:
        with kept() as changed:
            try:
                mine = _ready(copied(policy), loaded)
            except TrainingProblem:
                # No weights for a tiny model of random weights: none are expected.
                mine = _ready(copied(policy.untrained()), loaded)
    except PolicyProblem as problem:
        raise Mistake(str(problem).partition(": ")[2]) from None
    except Exception as problem:  # noqa: BLE001 - whatever it raises is the finding
        raise Mistake(f"ready(model, seed=0) raised {problem!r} on a tiny Llama") from None
    return mine, place, changed


def _ready(policy: Policy, model: LoadedModel) -> Policy:
    with noted(policy, READY):
        return made_ready(policy, model, 0, name="policy")


def cases_for(given: Policy | ScoreFunction, **changes: Any) -> SearchStrategy[Case]:
    """Cases of any shape, or of the tiny model's for a policy that gets ready for a model.

    The policy is asked as it was given: the one that `ready` returned need not say that it learned.
    """
    if not learns(as_given(given)):
        return cases(**changes)
    return cases(shape=lengths().map(lambda tokens: replace(MODEL_SHAPE, tokens=tokens)), **changes)


def long_case(given: Policy | ScoreFunction) -> Case:
    """The longest context there is, of a shape that `cases_for` draws."""
    shape = Shape(layers=1, heads=2, kv_heads=1, tokens=LONGEST, size=4)
    if learns(as_given(given)):
        shape = replace(MODEL_SHAPE, tokens=LONGEST)
    return Case(
        shape=shape,
        budget=LONGEST // 4,
        sinks=4,
        recents=16,
        dtype="float32",
        texture=Texture.PLAIN,
        seed=0,
    )
