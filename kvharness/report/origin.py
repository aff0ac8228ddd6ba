"""What was run: model, contract, versions, machines, and the packages of the policies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvharness.report import notation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kvharness.records.header import Header
    from kvharness.report.survey import Survey

_SHORT = 10


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the list; several values where runs differ."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The package that a policy is from."""

    policy: str
    written: str
    package: str
    digest: str
    parameters: str


def facts(survey: Survey, headers: Sequence[Header]) -> list[Fact]:
    """All that is known; what no header tells is left out."""
    found = [
        Fact("Model", _each(_model(header.settings) for header in headers)),
        Fact("Contract", _each(_pairs(_part(h.settings, "contract")) for h in headers)),
        Fact("Asked for", _each(_asked(header.settings) for header in headers)),
        Fact("Recorded", (_recorded(survey),)),
        Fact("Data", _each(_data(header.settings) for header in headers)),
        Fact("Versions", _each(_pairs(header.versions) for header in headers)),
        Fact("Machine", _each(_machine(header.machine) for header in headers)),
        Fact("Source code", _each(_git(header.git) for header in headers)),
        Fact("Started", (_when(headers),)),
    ]
    return [fact for fact in found if any(fact.values)]


def sources(survey: Survey, headers: Iterable[Header]) -> list[Source]:
    """Of every policy with records; the newest header that names it counts."""
    told: dict[str, Any] = {}
    for header in sorted(headers, key=lambda each: each.created):
        told |= _part(header.settings, "policies")
    return [
        _source(policy, told[policy])
        for policy in survey.policies
        if isinstance(told.get(policy), dict)
    ]


def _source(policy: str, given: dict[str, Any]) -> Source:
    return Source(
        policy=policy,
        written=str(given.get("policy", policy)),
        package=f"{given.get('distribution', '?')} {given.get('version', '')}".strip(),
        digest=str(given.get("source", "")),
        parameters=_parameters(given.get("parameters", "")),
    )


def _parameters(text: object) -> str:
    try:
        given = json.loads(str(text) or "{}")
    except ValueError:
        return str(text)
    return _pairs(given) if isinstance(given, dict) else str(text)


def _each(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))


def _part(settings: dict[str, Any], name: str) -> dict[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _pairs(given: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in given.items())


def _model(settings: dict[str, Any]) -> str:
    model = _part(settings, "model")
    if not model:
        return ""
    note = f" ({model['note']})" if model.get("note") else ""
    rest = [
        f"{model.get('dtype', '?')} on {model.get('device', '?')}",
        *(f"{name} {model[name]}" for name in ("kernel", "threads") if model.get(name)),
        *([f"weights {str(model['digest'])[:_SHORT]}"] if model.get("digest") else []),
    ]
    return f"{model.get('name', '?')}{note}; {', '.join(rest)}"


def _asked(settings: dict[str, Any]) -> str:
    seeds, items = settings.get("seeds"), settings.get("items")
    if seeds is None or items is None:
        return ""
    told = f"{notation.count(seeds, 'seed')} of {notation.count(items, 'item')} in each suite"
    generate = settings.get("generate")
    return f"{told}; text generated for {generate} questions" if generate else told


def _recorded(survey: Survey) -> str:
    suites = ", ".join(
        f"{notation.count(survey.items(suite), 'item')} of {suite}" for suite in survey.suites
    )
    records = notation.count(sum(1 for _ in survey.all_records()), "record")
    return f"{records}: {suites}" if suites else records


def _data(settings: dict[str, Any]) -> str:
    data = _part(settings, "data")
    # A path says nothing elsewhere, and may say too much: its last part names the file.
    names = {suite: str(each).replace("\\", "/").rsplit("/", 1)[-1] for suite, each in data.items()}
    return _pairs(names) or "generated from the seeds"


def _machine(machine: dict[str, Any]) -> str:
    parts = [machine.get("processor"), machine.get("platform")]
    told = ", ".join(str(part) for part in parts if part)
    cores = machine.get("cores")
    return f"{told}, {notation.count(cores, 'core')}" if isinstance(cores, int) else told


def _git(git: dict[str, Any]) -> str:
    if not git.get("commit"):
        return ""
    state = "with changes that are not committed" if git.get("dirty") else "clean"
    return f"commit {str(git['commit'])[:_SHORT]}, {state}"


def _when(headers: Sequence[Header]) -> str:
    if not headers:
        return ""
    first, last = (pick(header.created for header in headers) for pick in (min, max))
    runs = notation.count(len(headers), "process", "processes")
    return f"{first}, {runs}" if first == last else f"{first} to {last}, {runs}"
