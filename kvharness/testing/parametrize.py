"""Checks as pytest tests: one for each policy and check that applies to it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import pytest

from kvharness.policy.interface import FunctionPolicy, Policy
from kvharness.testing.catalogue import CHECKS, VERSION, checks_for, left_out
from kvharness.testing.subject import as_given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kvharness.policy.interface import ScoreFunction

    Given = Policy | ScoreFunction

Test = TypeVar("Test", bound="Callable[..., object]")
#: The attribute of a test function that tells the report which checks were left out.
LEFT_OUT = "kv_left_out"
_PREFIX = "check_"


def parametrize_with_checks(
    policies: Iterable[Given] | Mapping[str, Given],
    *,
    expected_failures: Mapping[str, str] | None = None,
) -> Callable[[Test], Test]:
    """Give a test the arguments ``policy`` and ``check``; it calls ``check(policy)``.

    Args:
        policies: policies and score functions, or a mapping from ids to them.
        expected_failures: check name to reason. Strict: one that passes is a failure.

    Raises:
        ValueError: an expected failure names no check, or one that applies to no policy.
    """
    named = _named(policies)
    expected = {name.removeprefix(_PREFIX): why for name, why in (expected_failures or {}).items()}
    _require(expected, named)

    def decorate(test: Test) -> Test:
        note_left_out(test, named)
        mark = pytest.mark.parametrize(("policy", "check"), parameters(named, expected))
        marked: Test = mark(test)
        return marked

    return decorate


def parameters(named: Mapping[str, Given], expected: Mapping[str, str]) -> list[object]:
    """``pytest.param(policy, check)`` with ids such as ``snapkv-exact_budget``."""
    made: list[object] = []
    for name, policy in named.items():
        for check in checks_for(policy):
            reason = expected.get(check.name)
            marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
            made.append(pytest.param(policy, check, id=f"{name}-{check.name}", marks=marks))
    return made


def note_left_out(test: object, named: Mapping[str, Given]) -> None:
    """Leave a note on a test for `left_out_lines`."""
    setattr(test, LEFT_OUT, {name: left_out(policy) for name, policy in named.items()})


def left_out_lines(items: Iterable[pytest.Item]) -> list[str]:
    """For the report's header: how many checks there are, and which were left out and why."""
    tests = {id(test): test for test in (getattr(item, "function", None) for item in items)}
    notes = [note for test in tests.values() if (note := getattr(test, LEFT_OUT, None))]
    lines = [
        f"  {name} without {', '.join(check for check in reasons if reasons[check] == reason)}: "
        f"{reason}"
        for note in notes
        for name, reasons in note.items()
        for reason in dict.fromkeys(reasons.values())
    ]
    return [f"kvharness: {len(CHECKS)} checks, version {VERSION}", *lines] if notes else []


def _named(policies: Iterable[Given] | Mapping[str, Given]) -> dict[str, Given]:
    if isinstance(policies, Mapping):
        return dict(policies)
    if isinstance(policies, Policy) or callable(policies):
        raise TypeError(f"{policies!r}: expected a list of policies, such as [SnapKV()]")
    named: dict[str, Given] = {}
    for given in policies:
        name = _name(as_given(given))
        copies = sum(other.partition("#")[0] == name for other in named)
        named[f"{name}#{copies + 1}" if copies else name] = given
    return named


def _name(policy: Policy) -> str:
    if isinstance(policy, FunctionPolicy):
        return str(getattr(policy.function, "__name__", "function"))
    return type(policy).__name__


def _require(expected: Mapping[str, str], named: Mapping[str, Given]) -> None:
    known = [check.name for check in CHECKS]
    used = {check.name for policy in named.values() for check in checks_for(policy)}
    for name in expected:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"expected_failures: there is no check {name!r}.{hint}")
        if name not in used:
            raise ValueError(
                f"expected_failures: {name!r} applies to none of {', '.join(named)}; remove it"
            )
