"""Which policies a user asked for, held against those that are installed."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from kvharness.discovery.presses import is_press, refuse_inside, require_press
from kvharness.discovery.spec import EVERY, PolicySpec
from kvharness.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kvharness.discovery.registry import Installed

#: Names of policies may begin with a digit, too.
_NUMBER = re.compile(r"\d+(\.\d*)?(e[+-]?\d+)?")
_FIRST_POLICIES = "run pip install kvharness-policies"


def resolve(texts: Iterable[str], known: Mapping[str, Installed]) -> list[PolicySpec]:
    """Specifications for ``--policy`` values; when there are none, those that need no request.

    `EVERY` stands for all policies but wrappers.

    Raises:
        UsageProblem: one is not installed, none is, or two would have the same test ids.
    """
    specs = [spec for text in texts for spec in PolicySpec.parse_list(text)]
    named = [spec for spec in specs if str(spec) != EVERY]
    for spec in named:
        require(spec, known)
    if not known:
        raise UsageProblem(f"no policy is installed; {_FIRST_POLICIES}")
    alone = [name for name, found in known.items() if not found.wraps]
    if not specs:
        alone = [name for name in alone if not known[name].on_request]
    unnamed = [] if specs and named == specs else [PolicySpec(name=name) for name in alone]
    chosen: dict[str, PolicySpec] = {}
    for spec in [*unnamed, *named]:
        other = chosen.setdefault(spec.slug, spec)
        if other != spec:
            raise UsageProblem(f"--policy: {other} and {spec} have the same test ids; run one")
    return list(chosen.values())


def require(spec: PolicySpec, known: Mapping[str, Installed]) -> None:
    """Check that every name in a specification is installed, and every wrapper wraps.

    Raises:
        UsageProblem: names the near match and what is installed.
    """
    if is_press(spec):
        require_press(spec)
        return
    refuse_inside(spec)
    if problem := misplaced_number(spec):
        raise UsageProblem(f"--policy {spec}: {problem}")
    _require_names(spec, known)
    for part in spec.parts:
        if known[part.name].wraps and len(part.parts) == 1:
            raise _nothing_wrapped(part, known)


def misplaced_number(spec: PolicySpec) -> str:
    """Which number stands in the place of a policy, as a parameter without its name would."""
    for part in spec.parts:
        for value in map(str, part.arguments):
            if _NUMBER.fullmatch(value):
                return (
                    f"{value} is no policy; a parameter is written with its name, "
                    f"{part.name}(NAME={value})"
                )
    return ""


def _nothing_wrapped(spec: PolicySpec, known: Mapping[str, Installed]) -> UsageProblem:
    texts = [value for _, value in spec.parameters if value in known]
    inside = texts[0] if texts else "random"
    return UsageProblem(
        f"--policy {spec}: it wraps another policy; name one, such as '{spec.name}({inside})'"
    )


def _require_names(spec: PolicySpec, known: Mapping[str, Installed]) -> None:
    for name in spec.names:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listing = "".join(f"\n    {policy}" for policy in known.values())
        offer = f"Installed:{listing}" if known else f"None is; {_FIRST_POLICIES}"
        raise UsageProblem(f"no policy named {name!r} is installed.{hint} {offer}")
