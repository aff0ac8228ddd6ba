"""What a policy declares, held against what it is: asked once, where it is built or made ready."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from kvharness.errors import PolicyProblem
from kvharness.policy.interface import Policy, Stepping
from kvharness.policy.observation.base import Observation
from kvharness.policy.view import Capabilities, Positions

if TYPE_CHECKING:
    from kvharness.policy.interface import LoadedModel

#: What a policy declares, in the order it is looked at.
_DECLARED = {"needs": frozenset, "positions": Positions, "capabilities": Capabilities}
_EXPECTED = {"needs": "frozenset({Queries(8)}) or the like"}
#: Methods of before version 1, by how many arguments they took, and what takes their place.
_GONE = {
    "prepare": (2, "ready(model, seed), which returns the policy that scores"),
    "informed": (1, "choice.trace, which allocate(choice) and select(choice, budgets) are given"),
    "score_all": (1, "score(view), and select(choice, budgets) for what takes all layers at once"),
}
#: Methods that are given something else than before version 1.
_CHANGED = {
    "allocate": (1, "allocate(choice), with choice.scores, choice.budget and choice.protected"),
    "select": (2, "select(choice, budgets), with choice.scores and choice.protected"),
}
_STEP = "def step(self, step: Step) -> Tensor: return self.score(step.view)"


def misdeclared(policy: Policy) -> str:
    """What is wrong with a policy as it is built, in words; empty if nothing."""
    return _mistyped(policy) or _outdated(policy) or _unable(policy)


def _mistyped(policy: Policy) -> str:
    for name, kind in _DECLARED.items():
        given = getattr(policy, name)
        if not isinstance(given, kind):
            return (
                f"{name} is a {type(given).__name__}, expected {_EXPECTED.get(name, kind.__name__)}"
            )
    for each in policy.needs:
        if wrong := _unobservable(each):
            return f"needs has a {type(each).__name__}, {wrong}"
    return ""


def _unobservable(given: object) -> str:
    if not isinstance(given, Observation):
        return "expected an Observation such as Queries(8)"
    if type(given).__eq__ is object.__eq__:
        return "which equals no other one: make the class a dataclass(frozen=True)"
    return ""


def _outdated(policy: Policy) -> str:
    """Which method is of an interface that was never released; a call of it would go wrong."""
    for name, (count, replacement) in _GONE.items():
        if _takes(getattr(policy, name, None), count):
            return f"it has a method {name}, which is never called; use {replacement}"
    for name, (count, replacement) in _CHANGED.items():
        method = getattr(policy, name)
        if not _takes(method, count):
            given = ", ".join(inspect.signature(method).parameters) if callable(method) else "?"
            return f"it has {name}({given}); write {replacement}"
    return ""


def _takes(method: Any, count: int) -> bool:
    """Whether something can be called with so many arguments."""
    if not callable(method):
        return False
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        # Nothing says what it takes.
        return True
    return True


def _unable(policy: Policy) -> str:
    able = policy.capabilities
    return unstepping(policy) if able.decodes or able.blocks else ""


def unstepping(policy: Policy) -> str:
    """Why a policy cannot evict on the way; empty if it can."""
    if isinstance(policy, Stepping):
        return ""
    modes = [mode for mode in ("decodes", "blocks") if getattr(policy.capabilities, mode)]
    declared = " and ".join(f"{mode}=True" for mode in modes) or "nothing of the kind"
    return f"its capabilities declare {declared}, and it has no step; add `{_STEP}`"


def made_ready(policy: Policy, model: LoadedModel, seed: int, *, name: str) -> Policy:
    """The policy that scores on a model, which must declare what the one that was built does.

    Raises:
        PolicyProblem: it declares something else, or is no policy; in addition to whatever
            `Policy.ready` raises.
    """
    ready: object = policy.ready(model, seed)
    if not isinstance(ready, Policy):
        kind = type(ready).__name__
        raise PolicyProblem(name, f"ready returned {kind}, expected the policy that scores")
    for part in ("needs", "positions", "capabilities"):
        due, given = getattr(policy, part), getattr(ready, part)
        if given != due:
            raise PolicyProblem(
                name,
                f"ready returned a policy with {part} {given}, expected {due}, as it was built: a "
                f"run is planned by what is declared before any model is loaded",
            )
    if wrong := misdeclared(ready):
        raise PolicyProblem(name, f"ready returned a policy that is not one: {wrong}")
    return ready
