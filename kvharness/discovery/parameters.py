"""A policy's parameters as a record's key has them: a text that is the same in every process."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvharness.discovery.code_digest import file_digest
from kvharness.policy.interface import FunctionPolicy, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: As in ``<function amax at 0x7f8212c630b0>``.
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_SHOWN = 80
_EXPECTED = "give a number, a text, an enum, or an object whose repr is always the same"


def parameters_text(policy: Policy) -> str:
    """The policy's parameters as JSON: its dataclass fields, nested policies by class name.

    Fields that the constructor does not take are none: they follow from the others.
    """
    return json.dumps(_described(policy, []), sort_keys=True)


def unstable_parameter(policy: Policy, again: Callable[[], object]) -> str:
    """Which parameter has another text in another process, and what to do; empty if none.

    Args:
        policy: as it was built.
        again: builds it once more; called only where a parameter is neither a number nor a text
            nor made of them.
    """
    opaque = _opaque(policy)
    second = _opaque(again()) if opaque else {}
    for name, text in opaque.items():
        other = second.get(name, "")
        if text != other or _ADDRESS.search(text):
            then = (
                f", and {other[:_SHOWN] or 'nothing'} when the policy is built again"
                if text != other
                else ""
            )
            return (
                f"the parameter {name} is {text[:_SHOWN]}{then}; this text is another one in each "
                f"process, so no record would be found again; {_EXPECTED}"
            )
    return ""


def files_digest(values: Iterable[object]) -> str:
    """Digests of all files that parameters name; empty where they name none.

    Args:
        values: of parameters, and policies that have some.
    """
    return " ".join(sorted(map(file_digest, set(named_files(values)))))


def named_files(values: Iterable[object]) -> Iterator[Path]:
    """Files among texts, paths and what holds them; of policies, those of their parameters."""
    for value in values:
        if isinstance(value, str | Path):
            if path := _file(value):
                yield path
        elif isinstance(value, Policy):
            yield from named_files(_values(value).values())
        elif isinstance(value, Mapping):
            yield from named_files(value.values())
        elif isinstance(value, list | tuple | AbstractSet):
            yield from named_files(value)


def policies_inside(policy: Policy) -> Iterator[Policy]:
    """A policy and those that are its parameters, all the way down."""
    yield policy
    for value in _values(policy).values():
        if isinstance(value, Policy):
            yield from policies_inside(value)


def _file(value: str | Path) -> Path | None:
    try:
        path = Path(value).expanduser()
        return path.resolve() if path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        # A text may be anything: too long for a name, or with characters that none has.
        return None


def _values(policy: Policy) -> dict[str, object]:
    made: Any = policy
    known = fields(made) if is_dataclass(made) and not isinstance(made, FunctionPolicy) else ()
    return {each.name: getattr(made, each.name) for each in known if each.init}


def _described(policy: Policy, opaque: list[str]) -> dict[str, object]:
    return {name: _plain(value, opaque) for name, value in _values(policy).items()}


def _plain(value: object, opaque: list[str]) -> object:  # noqa: PLR0911 - one kind each
    """What JSON can hold, in an order that no hash decides; reprs are added to ``opaque``."""
    if isinstance(value, Policy):
        return {type(value).__name__: _described(value, opaque)}
    if isinstance(value, Enum):
        return str(value) if isinstance(value, str) else f"{type(value).__name__}.{value.name}"
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {str(_plain(key, opaque)): _plain(each, opaque) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, opaque) for each in value]
    if isinstance(value, AbstractSet):
        return sorted((_plain(each, opaque) for each in value), key=json.dumps)
    if is_dataclass(value) and not isinstance(value, type):
        inside = {each.name: getattr(value, each.name) for each in fields(value)}
        return {type(value).__name__: _plain(inside, opaque)}
    opaque.append(repr(value))
    return opaque[-1]


def _opaque(policy: object) -> dict[str, str]:
    """What only a repr describes of each parameter."""
    found = {}
    for name, value in _values(policy).items() if isinstance(policy, Policy) else ():
        texts: list[str] = []
        _plain(value, texts)
        found[name] = ", ".join(texts)
    return {name: text for name, text in found.items() if text}
