"""Reading one TOML table key by key, with errors that name file, claim, key and what is allowed."""

from __future__ import annotations

import difflib
import reprlib
from typing import TYPE_CHECKING, Any, TypeVar

from kvharness.errors import ClaimProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from enum import StrEnum
    from pathlib import Path

    Choice = TypeVar("Choice", bound=StrEnum)

_LARGEST = 1e12
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


class Table:
    """One ``[[claim]]`` table; keys are taken out as they are read.

    Args:
        path: of its file.
        number: of the table in the file, from 1; it names a claim without an id.
        table: what TOML gave.
        keys: all keys that there are.

    Raises:
        ClaimProblem: it is no table, or has a key that there is not.
    """

    def __init__(self, path: Path, number: int, table: object, keys: Sequence[str]) -> None:
        self.path = path
        self.ordinal = number
        self.name = f"claim {number}"
        if not isinstance(table, dict):
            raise ClaimProblem(f"{path}: {self.name} is {shown(table)}: expected a [[claim]] table")
        self.left: dict[str, Any] = dict(table)
        if isinstance(table.get("id"), str):
            self.name = f"claim {shown(table['id'])}"
        for key in self.left:
            # Before anything else: a key that is misspelt is also missing.
            if key not in keys:
                raise self.problem(shown(key), f"is no key of a claim: {expected_one(key, keys)}")

    def problem(self, key: str, text: str) -> ClaimProblem:
        return ClaimProblem(f"{self.path}: {self.name}: {key} {text}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.left.pop(key, default)
        if value is None:
            raise self.problem(key, "is missing: expected text in quotes")
        if not isinstance(value, str):
            raise self.problem(key, f"{shown(value)}: expected text in quotes")
        return value

    def choice(self, key: str, kind: type[Choice], default: Choice | None = None) -> Choice:
        return kind(self.one_of(key, [each.value for each in kind], default))

    def one_of(self, key: str, allowed: Sequence[str], default: str | None = None) -> str:
        if key not in self.left and default is None:
            raise self.problem(key, f"is missing: expected one of {', '.join(allowed)}")
        value = self.text(key, default)
        if value not in allowed:
            raise self.problem(key, f"{shown(value)}: {expected_one(value, allowed)}")
        return value

    def several(self, key: str, example: str, check: Callable[[str], str]) -> tuple[str, ...]:
        """A list of texts, each as ``check`` gives it back; no two of them the same."""
        value = self.left.pop(key, None)
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            given = "is missing" if value is None else shown(value)
            raise self.problem(key, f"{given}: expected a list of texts such as {example}")
        found = tuple(check(each) for each in value)
        if len(set(found)) < len(found):
            raise self.problem(key, f"{shown(value)}: expected each of them once")
        return found

    def number(self, key: str) -> float:
        """From 0, which it is where it is left out."""
        value = self.left.pop(key, 0.0)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < _LARGEST:
            raise self.problem(key, f"{shown(value)}: expected a number from 0")
        return float(value)

    def switch(self, key: str) -> bool:
        value = self.left.pop(key, False)
        if not isinstance(value, bool):
            raise self.problem(key, f"{shown(value)}: expected true or false")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.left.pop(key, {})
        if not isinstance(value, dict):
            raise self.problem(key, f"{shown(value)}: expected a table in braces")
        return value


def shown(value: object) -> str:
    """A value in a message: its repr, cut to about 60 characters."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        # Python writes no number of more than 4300 digits, and TOML has them in hexadecimal.
        return "a number of thousands of digits"


def expected_one(given: object, allowed: Iterable[str]) -> str:
    """What is allowed, and which of it may have been meant."""
    names = [str(each) for each in allowed]
    near = difflib.get_close_matches(str(given)[:60], names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"expected one of {', '.join(names)}{hint}"
