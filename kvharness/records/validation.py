"""Parsers of JSON values: each gives its value back in plain types, or raises MismatchError.

Nothing that one of them accepts fails later: numbers can be squared and summed, text be encoded.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any

from kvharness.contract import retention_from_text

Parser = Callable[[Any], Any]

#: A mean of squared differences of such numbers is still finite.
LARGEST_NUMBER = 1e100
_LARGEST_INT = 2**63 - 1
_LONGEST_RETENTION = 128
_LONGEST_NAME = 40


class MismatchError(ValueError):
    """A value is not what was expected; it gets its place on the way out."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self._problem = problem
        self._place = ""

    def __str__(self) -> str:
        return f"{self._place.lstrip('.')}: {self._problem}"

    def within(self, name: object) -> MismatchError:
        short = isinstance(name, str) and name.isidentifier() and len(name) <= _LONGEST_NAME
        self._place = (f".{name}" if short else f"[{reprlib.repr(name)}]") + self._place
        return self


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise mismatch("a string", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise mismatch("text without lone surrogates", value) from None
    return value


def number(value: Any) -> float:
    # The comparison is exact for integers of any size and false for NaN.
    if not _is(value, (float, int)) or not abs(value) <= LARGEST_NUMBER:
        raise mismatch(f"a finite number of at most {LARGEST_NUMBER:g}", value)
    return float(value)


def integer(value: Any, least: int = -_LARGEST_INT, most: int = _LARGEST_INT) -> int:
    if not _is(value, int) or not least <= value <= most:
        expected = f"an integer from {least} to {most}"
        raise mismatch(expected, value)
    return int(value)


def count(value: Any) -> int:
    return integer(value, least=0)


def switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise mismatch("true or false", value)
    return value


def retention(value: Any) -> str:
    if not _is_retention(text(value)):
        raise mismatch("a retention such as '0.25' or '1_3'", value)
    return str(value)


def optional(parser: Parser) -> Parser:
    return lambda value: None if value is None else parser(value)


def several(parser: Parser) -> Parser:
    def parse(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise mismatch("a list", value)
        return [at(place, parser, item) for place, item in enumerate(value)]

    return parse


def mapping(parser: Parser) -> Parser:
    def parse(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise mismatch("an object", value)
        return {at(name, text, name): at(name, parser, item) for name, item in value.items()}

    return parse


def plain(value: Any) -> Any:
    """Whatever JSON can hold, at any depth."""
    if value is None or isinstance(value, bool):
        return value
    for kind, parser in _PLAIN.items():
        if isinstance(value, kind):
            return parser(value)
    raise mismatch("None, a bool, number, string, list or dict", value)


def one_of(*allowed: str) -> Parser:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise mismatch(f"one of {', '.join(allowed)}", value)
        return str(value)

    return parse


def known(required: Mapping[str, Parser], others: Mapping[str, Parser]) -> Parser:
    """An object with all of ``required`` and any of ``others``; what else it has is only JSON."""

    def parse(value: Any) -> dict[str, Any]:
        found: dict[str, Any] = mapping(plain)(value)
        _check_there(required.keys(), found.keys())
        checked = {**required, **others}
        return found | {
            name: at(name, checked[name], found[name]) for name in found if name in checked
        }

    return parse


def table(dataclass: type[Any], parsers: Mapping[str, Parser]) -> Parser:
    """An object with the fields of ``dataclass``; those that have a default may be missing."""
    required = {
        spec.name
        for spec in fields(dataclass)
        if spec.default is MISSING and spec.default_factory is MISSING
    }

    def parse(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise mismatch("an object", value)
        _check_there(required, value.keys())
        if unknown := value.keys() - parsers.keys():
            msg = f"unknown field {reprlib.repr(min(unknown))}"
            raise MismatchError(msg)
        return {name: at(name, parsers[name], item) for name, item in value.items()}

    return parse


def _check_there(required: AbstractSet[str], given: AbstractSet[str]) -> None:
    if missing := required - given:
        msg = f"the field {min(missing)!r} is missing"
        raise MismatchError(msg)


def _is(value: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


@lru_cache(maxsize=256)
def _is_retention(given: str) -> bool:
    # What is read comes first: "1e999999999" is a short text of a huge fraction.
    if len(given) > _LONGEST_RETENTION or set(given) - set("0123456789._"):
        return False
    try:
        return 0 < retention_from_text(given) <= 1
    except (ValueError, ZeroDivisionError):
        return False


def at(name: object, parser: Parser, value: object) -> Any:
    try:
        return parser(value)
    except MismatchError as error:
        raise error.within(name) from None


def mismatch(expected: str, value: object) -> MismatchError:
    given = f"{type(value).__name__} {reprlib.repr(value)}"
    return MismatchError(f"expected {expected}, got {given}")


_PLAIN: dict[Any, Parser] = {
    str: text,
    int: integer,
    float: number,
    list | tuple: several(plain),
    dict: mapping(plain),
}
