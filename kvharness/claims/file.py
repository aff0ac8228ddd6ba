"""Claims files: TOML tables, read with errors that name file, claim, key and what is allowed."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from kvharness.claims.claim import Claim, Unit
from kvharness.claims.metric import METRICS
from kvharness.contract import parse_retention, retention_text
from kvharness.errors import ClaimProblem, UsageProblem
from kvharness.inference.method import Method
from kvharness.inference.region import Kind, Verdict
from kvharness.spec import PolicySpec
from kvharness.suite import SUITES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from enum import StrEnum
    from pathlib import Path

    Choice = TypeVar("Choice", bound=StrEnum)

_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LARGEST_FILE = 2**20
_SETTINGS: dict[str, type] = {
    "context": int,
    "sinks": int,
    "recents": int,
    "question": str,
    "evict": str,
}
_VERDICTS = (Verdict.SUPPORTED, Verdict.REFUTED, Verdict.INCONCLUSIVE)


def read_claims(path: Path) -> list[Claim]:
    """The claims of a file, in its order.

    Raises:
        ClaimProblem: the file cannot be read, is not TOML, or a claim is not one; says where.
    """
    tables = _tables(path)
    claims = [_claim(_Table(path, number, table)) for number, table in enumerate(tables, 1)]
    check_ids(claims)
    return claims


def check_ids(claims: Iterable[Claim]) -> None:
    """Refuse two claims of one id, wherever they stand.

    Raises:
        ClaimProblem: names both files.
    """
    seen: dict[str, Claim] = {}
    for claim in claims:
        other = seen.setdefault(claim.id, claim)
        if other is not claim:
            raise ClaimProblem(
                f"two claims have the id {claim.id!r}, in {other.origin} and {claim.origin}; "
                f"rename one"
            )


def _tables(path: Path) -> list[Any]:
    try:
        content = path.read_bytes()
        if len(content) > _LARGEST_FILE:
            raise ClaimProblem(f"{path}: expected a claims file of at most 1 MiB")
        data = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise ClaimProblem(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ClaimProblem(f"{path}: is not TOML: {error}") from None
    unknown = sorted(set(data) - {"claim"})
    if unknown or not isinstance(data.get("claim", []), list):
        given = ", ".join(unknown) or "a claim that is no [[claim]] table"
        raise ClaimProblem(f"{path}: {given}: expected [[claim]] tables and nothing else")
    return list(data.get("claim", []))


class _Table:
    """One ``[[claim]]`` table; keys are taken out as they are read."""

    def __init__(self, path: Path, number: int, table: object) -> None:
        self.path = path
        self.name = f"claim {number}"
        if not isinstance(table, dict):
            raise self.problem("claim", f"{table!r}: expected a table")
        self.left: dict[str, Any] = dict(table)
        if isinstance(table.get("id"), str):
            self.name = f"claim {table['id'][:60]!r}"

    def problem(self, key: str, text: str) -> ClaimProblem:
        return ClaimProblem(f"{self.path}: {self.name}: {key} {text}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.left.pop(key, default)
        if value is None:
            raise self.problem(key, "is missing")
        if not isinstance(value, str):
            raise self.problem(key, f"{value!r}: expected text in quotes")
        return value

    def choice(self, key: str, kind: type[Choice], default: Choice | None = None) -> Choice:
        return kind(self.one_of(key, [each.value for each in kind], default))

    def one_of(self, key: str, allowed: Iterable[str], default: str | None = None) -> str:
        value, names = self.text(key, default), list(allowed)
        if value not in names:
            raise self.problem(key, _not_allowed(value, names))
        return value

    def several(self, key: str, check: Callable[[str], str]) -> tuple[str, ...]:
        value = self.left.pop(key, None)
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            given = "is missing" if value is None else f"{value!r}"
            raise self.problem(key, f"{given}: expected a list of texts, at least one")
        found = tuple(check(each) for each in value)
        if len(set(found)) < len(found):
            raise self.problem(key, f"{value!r}: expected each of them once")
        return found

    def number(self, key: str) -> float:
        value = self.left.pop(key, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
            raise self.problem(key, f"{value!r}: expected a number from 0")
        return float(value)

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.left.pop(key, {})
        if not isinstance(value, dict):
            raise self.problem(key, f"{value!r}: expected a table in braces")
        return value

    def done(self, allowed: Iterable[str]) -> None:
        for key in self.left:
            raise self.problem(key, "is no key of a claim" + _near(key, list(allowed)))


def _claim(table: _Table) -> Claim:
    claim = Claim(
        id=_identifier(table),
        kind=table.choice("kind", Kind),
        policy=_policy(table, "policy"),
        baseline=_policy(table, "baseline"),
        suites=table.several("suites", lambda name: _suite(table, name)),
        retentions=table.several("retention", lambda text: _retention(table, text)),
        metric=table.one_of("metric", METRICS),
        margin=table.number("margin"),
        unit=table.choice("unit", Unit, Unit.ITEM),
        method=table.choice("method", Method, Method.AUTO),
        baseline_retention=_optional_retention(table),
        control=table.text("control", "") or None,
        family=table.text("family", "") or None,
        settings=_settings(table),
        expect=_expect(table),
        source=table.text("source", ""),
        why=table.text("why", ""),
        origin=str(table.path),
    )
    table.done(_KEYS)
    _check_margin(table, claim)
    return claim


_KEYS = (
    "id", "kind", "policy", "baseline", "suites", "retention", "metric", "margin", "unit",
    "method", "baseline_retention", "control", "family", "settings", "expect", "source", "why",
)  # fmt: skip


def _identifier(table: _Table) -> str:
    value = table.text("id")
    if not _ID.fullmatch(value):
        raise table.problem("id", f"{value!r}: expected lower-case letters, digits, '.', '+', '-'")
    return value


def _policy(table: _Table, key: str) -> str:
    value = table.text(key)
    try:
        specs = PolicySpec.parse_list(value)
    except UsageProblem:
        specs = []
    if len(specs) != 1:
        raise table.problem(key, f"{value!r}: expected one policy such as 'snapkv(window=16)'")
    return value


def _suite(table: _Table, name: str) -> str:
    if name not in SUITES:
        raise table.problem("suites", _not_allowed(name, list(SUITES)))
    return name


def _retention(table: _Table, text: str) -> str:
    try:
        return retention_text(parse_retention(text))
    except UsageProblem:
        raise table.problem(
            "retention", f'{text!r}: expected a fraction in (0, 1] as text, such as "0.25"'
        ) from None


def _optional_retention(table: _Table) -> str | None:
    text = table.text("baseline_retention", "")
    return _retention(table, text) if text else None


def _settings(table: _Table) -> dict[str, str | int]:
    found = table.mapping("settings")
    for name, value in found.items():
        if name not in _SETTINGS:
            raise table.problem("settings", _not_allowed(name, list(_SETTINGS)))
        if type(value) is not _SETTINGS[name]:
            wanted = "a whole number" if _SETTINGS[name] is int else "text in quotes"
            raise table.problem("settings", f"{name} = {value!r}: expected {wanted}")
    return dict(found)


def _expect(table: _Table) -> dict[str, Verdict]:
    found, allowed = table.mapping("expect"), [verdict.value for verdict in _VERDICTS]
    for model, verdict in found.items():
        if verdict not in allowed:
            raise table.problem(f"expect.{model!r}", _not_allowed(verdict, allowed))
    return {model: Verdict(verdict) for model, verdict in found.items()}


def _check_margin(table: _Table, claim: Claim) -> None:
    if claim.kind in {Kind.NOT_WORSE, Kind.EQUIVALENT} and claim.margin == 0:
        raise table.problem("margin", f"0: {claim.kind.value} needs a margin above 0")
    if claim.policy == claim.baseline and claim.baseline_retention is None:
        raise table.problem("baseline", f"{claim.baseline!r} is the policy itself")


def _not_allowed(given: object, allowed: list[str]) -> str:
    return f"{given!r}: expected one of {', '.join(allowed)}{_near(str(given), allowed)}"


def _near(given: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
