"""The golden file: what it holds, how a run differs from it, and what is to be done then."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvharness.discovery import registry
from kvharness.discovery.code_digest import code_digest
from kvharness.discovery.spec import PolicySpec
from kvharness.records import engine_version
from kvharness.records.engine_version import ENGINE_VERSION
from tests.golden.observed import TIES, observed, scenes
from tests.golden.replies import generated, scored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Entries = dict[str, dict[str, Any]]
FILE = Path(__file__).with_name("engine.json")
NUMBER = Path(engine_version.__file__).relative_to(Path(__file__).parents[2])
COMMAND = "python -m tests.golden"
#: Numbers of answers, relative: 3e-7 were measured between AVX2 and no vector units, and a sum of
#: another order is no other behaviour.
ROUNDING = 1e-4
_SHAKES = (1, 2)
_SHOWN = 12
_TIGHT = (",", ":")


class Cause(StrEnum):
    """Why a cell no longer does what it did, by what its key covers."""

    ENGINE = "engine"
    POLICY = "policy"
    ITEM = "item"
    CELL = "cell"


@dataclass(frozen=True, slots=True)
class Difference:
    """An entry that is not as the file has it."""

    name: str
    cause: Cause
    what: str


@dataclass(frozen=True, slots=True)
class Golden:
    """What the engine of one version did."""

    engine: int
    entries: Entries

    @classmethod
    def read(cls) -> Golden:
        content = json.loads(FILE.read_text(encoding="utf-8"))
        return cls(engine=content["engine"], entries=content["entries"])

    def write(self) -> None:
        """A line for each entry, so that a change shows what changed."""
        short = {name: _short(one) for name, one in self.entries.items()}
        lines = (
            f"{json.dumps(n)}: {json.dumps(one, separators=_TIGHT)}" for n, one in short.items()
        )
        text = ",\n".join(lines)
        FILE.write_text(f'{{"engine": {self.engine}, "entries": {{\n{text}\n}}}}\n', "utf-8")

    def differences(self, found: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
        """How some entries differ from those of the same names here."""
        return [each for name in found for each in _difference(name, self.entries, found[name])]


def observe() -> Entries:
    """Everything that the file has entries for, as it is now."""
    return {**_cells(), **generated(), **scored()}


def _cells(shake: int = 0) -> Entries:
    return {name: one for scene in scenes(shake).values() for name, one in observed(scene).items()}


def golden(found: Entries) -> Golden:
    """What to write: without what near-ties decide, and with the code that policies have."""
    others = [{**_cells(shake), **generated(shake)} for shake in _SHAKES]
    entries = {
        name: _certain(one, [other[name] for other in others if name in other])
        for name, one in found.items()
        if "fails" not in one
    }
    for name, one in entries.items():
        if code := _code(name):
            one["policy"] = code
    return Golden(engine=ENGINE_VERSION, entries=entries)


def _short(value: Any) -> Any:
    """With as many digits as float32 has, and without what is None."""
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _certain(one: dict[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of a kept set that hold on every processor; numbers that follow from them, if all do."""
    rest = {key: value for key, value in one.items() if key != "certain"}
    if "rows" not in one:
        same = all(other["text"] == one["text"] for other in others)
        return rest if same and one.get("certain", True) else {"item": one["item"], "left_out": 1}
    rows = [
        row if sure and all(other["rows"][index] == row for other in others) else None
        for index, (row, sure) in enumerate(zip(one["rows"], one["certain"], strict=True))
    ]
    if None in rows:
        del rest["evidence"], rest["nll"]
    return {**rest, "rows": rows, "left_out": rows.count(None)}


def _difference(name: str, stored: Entries, found: Mapping[str, Any]) -> list[Difference]:
    if name not in stored:
        # Refused when the file was written, and now.
        return [] if "fails" in found else [Difference(name, Cause.CELL, "it is not in the file")]
    due = stored[name]
    if due["item"] != found["item"]:
        return [Difference(name, Cause.ITEM, "the item has other content")]
    if "fails" in found:
        wrong = [f"it fails: {found['fails']}"]
    else:
        wrong = [
            f"{key} is {found.get(key)}, not {value}"
            for key, value in due.items()
            if key not in {"policy", "left_out"} and not _same(value, found.get(key))
        ]
    cause = Cause.ENGINE if due.get("policy", "") == _code(name) else Cause.POLICY
    return [Difference(name, cause, what) for what in wrong]


def _same(due: object, found: object) -> bool:
    """Equal but for rounding; None is a row that was left out."""
    if isinstance(due, list) and isinstance(found, list):
        pairs = zip(due, found, strict=False)
        return len(due) == len(found) and all(a is None or _same(a, b) for a, b in pairs)
    if isinstance(due, dict) and isinstance(found, dict):
        return due.keys() == found.keys() and all(_same(due[key], found[key]) for key in due)
    if isinstance(due, float) and isinstance(found, float):
        return math.isclose(due, found, rel_tol=ROUNDING, abs_tol=1e-9)
    return due == found


def _code(name: str) -> str:
    """The code of an entry's policy, whatever else is installed; empty where it has none."""
    text = name.rpartition(" ")[2]
    if name.startswith("score ") or text == TIES:
        return ""
    (spec,) = PolicySpec.parse_list(text)
    known = registry.installed()
    return code_digest({known[part.name].entry_point.module for part in spec.parts})


def advice(differences: Iterable[Difference], engine: int) -> str:
    """What differs, and what to do; empty if nothing does."""
    found: dict[Cause, list[str]] = defaultdict(list)
    for each in differences:
        found[each.cause].append(f"    {each.name}: {each.what}")
    raised = (
        f"Otherwise raise ENGINE_VERSION in {NUMBER} to {engine + 1}, so that "
        f"no record of another behaviour is reused, and run\n    {COMMAND}"
    )
    again = f"so no number is raised; run\n    {COMMAND}"
    told = {
        Cause.ENGINE: (
            f"the engine does other things than its version {engine} did. If that is a mistake, "
            f"correct it. {raised}"
        ),
        Cause.POLICY: f"policies were edited; keys have digests of their code, {again}",
        Cause.ITEM: f"items are others; keys have digests of their content, {again}",
        Cause.CELL: f"there are new cells, {again}",
    }
    return "\n\n".join(
        "\n".join([told[cause], *lines[:_SHOWN], *(["    ..."] if lines[_SHOWN:] else [])])
        for cause in Cause
        if (lines := found[cause])
    )
