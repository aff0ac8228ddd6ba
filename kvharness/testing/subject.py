"""A policy made ready for checking: with a model where it prepares for one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from kvharness.discovery.build import misdeclared
from kvharness.errors import TrainingProblem
from kvharness.isolation.torch_settings import kept
from kvharness.policy.interface import FunctionPolicy, LoadedModel, Policy
from kvharness.testing.mistake import Mistake
from kvharness.testing.model import MODEL_SHAPE, TinyModel
from kvharness.testing.reading import copied, overrides
from kvharness.testing.reads import noted
from kvharness.testing.strategies import cases, lengths

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from kvharness.policy.interface import ScoreFunction
    from kvharness.testing.case import Case


def ready(given: Policy | ScoreFunction) -> Policy:
    """A policy that can score: a function is wrapped, and one that prepares is prepared.

    Raises:
        Mistake: `prepare` raised.
        TypeError: neither a policy nor a function.
    """
    policy = as_given(given)
    return (
        ready_on(policy, TinyModel.of(MODEL_SHAPE))[0] if overrides(policy, "prepare") else policy
    )


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
    """The policy prepared for a copy of a model, and that copy; both as they were if it does not.

    Raises:
        Mistake: `prepare` raised.
    """
    if not overrides(policy, "prepare"):
        return policy, model
    return _prepared(policy, model)[:2]


def changed_by_prepare(given: Policy | ScoreFunction) -> list[str]:
    """Which of torch's settings `prepare` leaves changed.

    Raises:
        Mistake: `prepare` raised.
    """
    policy = as_given(given)
    prepares = overrides(policy, "prepare")
    return _prepared(policy, TinyModel.of(MODEL_SHAPE))[2] if prepares else []


def _prepared(policy: Policy, model: TinyModel) -> tuple[Policy, TinyModel, list[str]]:
    mine, place = copied(policy), copy.deepcopy(model)
    loaded = LoadedModel(source=place.runtime.source, module=place.runtime.model)
    try:
        with kept() as changed:
            try:
                _prepare(mine, loaded)
            except TrainingProblem:
                # No weights for a tiny model of random weights: none are expected.
                mine = copied(policy.untrained())
                _prepare(mine, loaded)
    except Exception as problem:  # noqa: BLE001 - whatever it raises is the finding
        raise Mistake(f"prepare(model, seed=0) raised {problem!r} on a tiny Llama") from None
    return mine, place, changed


def _prepare(policy: Policy, model: LoadedModel) -> None:
    with noted(policy, "prepare"):
        policy.prepare(model, seed=0)


def cases_for(policy: Policy, **given: Any) -> SearchStrategy[Case]:
    """Cases of any shape, or of the tiny model's for a policy that prepares for a model."""
    if not overrides(policy, "prepare"):
        return cases(**given)
    return cases(shape=lengths().map(lambda tokens: replace(MODEL_SHAPE, tokens=tokens)), **given)
