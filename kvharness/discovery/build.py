"""Policies from what packages offer: a policy, a class, or a function that scores."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING, Any

from kvharness.policy.interface import FunctionPolicy, Policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OFFER = "expected a function score(view), a Policy, or what makes one without being given anything"


def build(offered: Any, parts: Sequence[Policy], parameters: Mapping[str, Any]) -> object:
    """A policy of what an entry point offers, around others and with parameters of its own.

    Raises:
        TypeError: it does not take them; beside whatever building it raises.
    """
    if isinstance(offered, Policy):
        if parts or parameters:
            raise TypeError("it takes no parameters")
        return offered
    if inspect.isfunction(offered) and not parts and not parameters and _is_score(offered):
        return FunctionPolicy(function=offered)
    _expect_maker(offered, len(parts) + len(parameters))
    expect_parameters(offered, parameters)
    _expect_room(offered, parts, parameters)
    return offered(*parts, **parameters)


def _expect_maker(offered: Any, given: int) -> None:
    """Refuse what neither scores nor makes a policy, where nothing else can be meant."""
    if not callable(offered):
        raise TypeError(f"{type(offered).__name__} is no policy; {_OFFER}")
    if not inspect.isfunction(offered) or given:
        return
    due = [
        each.name
        for each in inspect.signature(offered).parameters.values()
        if each.default is each.empty
        and each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}
    ]
    if len(due) > 1:
        raise TypeError(f"a function of {', '.join(due)}; {_OFFER}")


def _expect_room(offered: Any, parts: Sequence[Policy], named: Mapping[str, object]) -> None:
    """Refuse policies in the places of other parameters, and of those that are named as well."""
    known = inspect.signature(offered).parameters.values() if parts else ()
    places = [
        each for each in known if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}
    ]
    for part, place in zip(parts, places, strict=False):
        if place.name in named:
            raise TypeError(f"{place.name} is given twice, by its place and by its name")
        if not isinstance(place.default, Policy) and place.default is not place.empty:
            raise TypeError(f"{place.name}={type(part).__name__}: expected no policy there")


def expect_parameters(offered: Any, parameters: Mapping[str, object]) -> None:
    """Refuse those that are not there, and what is no number where one should be.

    A dataclass takes anything for a number, and fails later.
    """
    known = inspect.signature(offered).parameters if parameters else {}
    anything = any(each.kind is each.VAR_KEYWORD for each in known.values())
    for name, value in parameters.items():
        if name not in known and not anything:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise TypeError(f"no parameter is called {name!r}{hint}")
        default = known[name].default if name in known else None
        if due := _due(default, value):
            raise TypeError(f"{name}={value!r}: expected {due}")


def _due(default: object, value: object) -> str:
    """What a parameter with this default should be, where the value is something else."""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "True or False"
    if isinstance(default, int) and (value is None or isinstance(value, bool | float | str)):
        return f"a whole number such as {default}"
    if isinstance(default, float) and (value is None or isinstance(value, bool | str)):
        return f"a number such as {default}"
    return ""


def takes(offered: Any) -> str:
    """Which parameters there are, with their defaults."""
    try:
        known = inspect.signature(offered).parameters.values()
    except (TypeError, ValueError):
        return "it says of no parameters that it takes them"
    shown = [str(_bare(each)) for each in known]
    return f"its parameters are {', '.join(shown)}" if shown else "it takes no parameters"


def _bare(parameter: inspect.Parameter) -> inspect.Parameter:
    """Without its type, and with an enum's value for its member, as users write it."""
    default = parameter.default
    shown = default.value if isinstance(default, Enum) else default
    return parameter.replace(annotation=parameter.empty, default=shown)


def _is_score(function: Any) -> bool:
    """A function of one argument without a Policy return type scores a view."""
    signature = inspect.signature(function)
    returns = signature.return_annotation
    makes_policy = returns is Policy or (isinstance(returns, str) and returns.endswith("Policy"))
    return len(signature.parameters) == 1 and not makes_policy
