"""The lines of a store: JSON, and one table of fields for each dataclass, in both directions.

A parser gives its value back in plain JSON types, or raises MismatchError. Nothing that one of them
accepts fails later: numbers are finite, text can be encoded.
"""

from __future__ import annotations

import json
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any

from kvharness.contract import retention_from_text
from kvharness.errors import StoreProblem
from kvharness.provenance import Header
from kvharness.record import QuestionRecord, Record, Seconds

SCHEMA = 1
Parser = Callable[[Any], Any]
#: What the functions here raise; RecursionError for values nested by the hundred.
INVALID = (ValueError, RecursionError)

_LARGEST_INT = 2**63 - 1
_LONGEST_RETENTION = 128
_LONGEST_NAME = 40


class NotJsonError(ValueError):
    """The line is not JSON text, as when its writer was killed."""


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


def encode_header(header: Header) -> bytes:
    values = {spec.name: getattr(header, spec.name) for spec in fields(header)}
    return _encode({"kind": "header", "schema": SCHEMA, **_at("header", HEADER, values)})


def encode_record(record: Record) -> bytes:
    """One line. The message of a ValueError names the field that cannot be stored."""
    return _encode({"kind": "record", **_at("record", RECORD, record.as_dict())})


def decode_header(line: bytes, file: str) -> Header:
    """Read what `encode_header` gave; ``file`` is for messages.

    Raises:
        StoreProblem: a header of another schema.
        ValueError: not a header.
    """
    values = _decode("header", line)
    schema = _at("schema", integer, values.pop("schema", None))
    if schema != SCHEMA:
        msg = (
            f"{file!r} is of store schema {schema}, this kvharness reads and writes schema "
            f"{SCHEMA}; use another directory with --kv-store DIR, or move the file away"
        )
        raise StoreProblem(msg)
    return Header(**_at("header", HEADER, values))


def decode_record(line: bytes) -> Record:
    """Read what `encode_record` gave. The message of a ValueError names the field."""
    return Record.from_dict(_at("record", RECORD, _decode("record", line)))


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise _mismatch("a string", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _mismatch("text without lone surrogates", value) from None
    return value


def number(value: Any) -> float:
    # The comparison is exact for integers of any size and false for NaN.
    if not _is(value, (float, int)) or not abs(value) <= sys.float_info.max:
        raise _mismatch("a finite number", value)
    return float(value)


def integer(value: Any, least: int = -_LARGEST_INT) -> int:
    if not _is(value, int) or not least <= value <= _LARGEST_INT:
        expected = f"an integer from {least} to {_LARGEST_INT}"
        raise _mismatch(expected, value)
    return int(value)


def count(value: Any) -> int:
    return integer(value, least=0)


def retention(value: Any) -> str:
    if not _is_retention(text(value)):
        raise _mismatch("a retention such as '0.25' or '1_3'", value)
    return str(value)


def optional(parser: Parser) -> Parser:
    return lambda value: None if value is None else parser(value)


def several(parser: Parser) -> Parser:
    def parse(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise _mismatch("a list", value)
        return [_at(place, parser, item) for place, item in enumerate(value)]

    return parse


def mapping(parser: Parser) -> Parser:
    def parse(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _mismatch("an object", value)
        return {_at(name, text, name): _at(name, parser, item) for name, item in value.items()}

    return parse


def plain(value: Any) -> Any:
    """Whatever JSON can hold, at any depth."""
    if value is None or isinstance(value, bool):
        return value
    for kind, parser in _PLAIN.items():
        if isinstance(value, kind):
            return parser(value)
    raise _mismatch("None, a bool, number, string, list or dict", value)


def table(dataclass: type[Any], parsers: Mapping[str, Parser]) -> Parser:
    """An object with the fields of ``dataclass``; those that have a default may be missing."""
    required = {
        spec.name
        for spec in fields(dataclass)
        if spec.default is MISSING and spec.default_factory is MISSING
    }

    def parse(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _mismatch("an object", value)
        if missing := required - value.keys():
            msg = f"the field {min(missing)!r} is missing"
            raise MismatchError(msg)
        if unknown := value.keys() - parsers.keys():
            msg = f"unknown field {reprlib.repr(min(unknown))}"
            raise MismatchError(msg)
        return {name: _at(name, parsers[name], item) for name, item in value.items()}

    return parse


def _encode(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _decode(kind: str, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError as error:
        msg = f"not UTF-8: {error.reason} at byte {error.start}"
        raise NotJsonError(msg) from error
    except json.JSONDecodeError as error:
        msg = f"not JSON: {error.msg} at column {error.colno}"
        raise NotJsonError(msg) from error
    if not isinstance(values, dict) or values.pop("kind", None) != kind:
        raise _mismatch(f"an object of kind {kind!r}", values).within(kind)
    return values


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


def _at(name: object, parser: Parser, value: object) -> Any:
    try:
        return parser(value)
    except MismatchError as error:
        raise error.within(name) from None


def _mismatch(expected: str, value: object) -> MismatchError:
    given = f"{type(value).__name__} {reprlib.repr(value)}"
    return MismatchError(f"expected {expected}, got {given}")


_PLAIN: dict[Any, Parser] = {
    str: text,
    int: integer,
    float: number,
    list | tuple: several(plain),
    dict: mapping(plain),
}
HEADER = table(
    Header,
    {
        "run": text,
        "created": text,
        "versions": mapping(text),
        "machine": mapping(plain),
        "git": mapping(plain),
        "settings": mapping(plain),
    },
)
QUESTION = table(
    QuestionRecord,
    {
        "exact": number,
        "slot_accuracy": number,
        "nll": number,
        "agreement": number,
        "evidence_kept": optional(number),
        "generated": optional(text),
        "text_metrics": mapping(number),
    },
)
SECONDS = table(Seconds, {"prefill": number, "select": number, "decode": number})
RECORD = table(
    Record,
    {
        "key": text,
        "suite": text,
        "policy": text,
        "retention": optional(retention),
        "seed": integer,
        "item": text,
        "item_digest": text,
        "variant": text,
        "score": number,
        "score_name": text,
        "metrics": mapping(number),
        "questions": several(QUESTION),
        "evidence_kept": optional(number),
        "realised_retention": number,
        "kept": several(count),
        "tokens": count,
        "cache_bytes": count,
        "mask_digest": several(text),
        "seconds": SECONDS,
    },
)
