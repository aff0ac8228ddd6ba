"""The lines of a store: JSON, and one table of fields for each dataclass, in both directions.

A header's settings are checked here too, so that nobody who reads a store has to.
"""

from __future__ import annotations

import json
from dataclasses import fields
from functools import partial
from typing import Any

from kvharness.contract import FIRST
from kvharness.errors import StoreProblem, UsageProblem
from kvharness.records.header import Header
from kvharness.records.record import Held, QuestionRecord, Record, Seconds
from kvharness.records.validation import (
    MismatchError,
    Parser,
    at,
    count,
    integer,
    known,
    mapping,
    mismatch,
    number,
    one_of,
    optional,
    plain,
    retention,
    several,
    switch,
    table,
    text,
)
from kvharness.settings.setting import Setting, as_text
from kvharness.settings.table import contract_settings

SCHEMA = 1
#: What the functions here raise; RecursionError for values nested by the hundred.
INVALID = (ValueError, RecursionError)
_MODEL = ("digest", "note", "dtype", "device", "kernel", "threads", "template")
#: As of ``--kv-seeds`` and ``--kv-items``.
_size = partial(integer, least=1, most=10_000_000)


class NotJsonError(ValueError):
    """The line is not JSON text, as when its writer was killed."""


#: Of a header's line, and of no other text within one, where quotes are escaped.
HEADER_START = b'{"kind": "header"'


def encode_header(header: Header) -> bytes:
    values = {spec.name: getattr(header, spec.name) for spec in fields(header)}
    return _encode({"kind": "header", "schema": SCHEMA, **at("header", HEADER, values)})


def encode_record(record: Record) -> bytes:
    """One line. The message of a ValueError names the field that cannot be stored."""
    return _encode({"kind": "record", **at("record", RECORD, record.as_dict())})


def decode_header(line: bytes, file: str) -> Header:
    """Read what `encode_header` gave; ``file`` is for messages.

    Raises:
        StoreProblem: a header of another schema.
        ValueError: not a header.
    """
    values = _decode("header", line)
    schema = at("schema", integer, values.pop("schema", None))
    if schema != SCHEMA:
        msg = (
            f"{file!r} is of store schema {schema}, this kvharness reads and writes schema "
            f"{SCHEMA}; use another directory with --kv-store DIR, or move the file away"
        )
        raise StoreProblem(msg)
    return Header(**at("header", HEADER, values))


def decode_record(line: bytes) -> Record:
    """Read what `encode_record` gave. The message of a ValueError names the field."""
    return Record.from_dict(at("record", RECORD, _decode("record", line)))


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
        raise mismatch(f"an object of kind {kind!r}", values).within(kind)
    return values


def _contract(value: Any) -> dict[str, Any]:
    parsers = {name: _of_setting(each) for name, each in contract_settings().items()}
    later = {name: parser for name, parser in parsers.items() if name not in FIRST}
    found: dict[str, Any] = known({name: parsers[name] for name in FIRST}, later)(value)
    return found


def _of_setting(setting: Setting[Any]) -> Parser:
    """Of a contract's value: as plain as the setting's, and one that could be given."""
    kind = _plain(setting)

    def parse(value: Any) -> Any:
        found = kind(value)
        try:
            setting.read_text(as_text(found))
        except UsageProblem as problem:
            raise MismatchError(str(problem)) from None
        return found

    return parse


def _plain(setting: Setting[Any]) -> Parser:
    if setting.choices:
        return one_of(*setting.choices)
    if setting.switch:
        return switch
    return count if setting.is_number else text


SETTINGS = known(
    {
        "model": known({"name": text}, dict.fromkeys(_MODEL, text)),
        "contract": _contract,
        "seeds": _size,
        "items": _size,
        "data": mapping(text),
        "policies": mapping(mapping(text)),
    },
    {"engine": text, "generate": text, "options": mapping(text), "oracles": several(text)},
)
HEADER = table(
    Header,
    {
        "run": text,
        "created": text,
        "versions": mapping(text),
        "machine": mapping(plain),
        "git": mapping(plain),
        "settings": SETTINGS,
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
HELD = table(Held, {"steps": count, "least": count, "most": count})
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
        "held": optional(HELD),
    },
)
