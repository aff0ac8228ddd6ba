"""Claims files: TOML tables, each of them checked."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from kvharness.claims.claim import Claim, Unit
from kvharness.claims.metric import METRICS
from kvharness.claims.toml_table import Table, expected_one, shown
from kvharness.contract import parse_retention, retention_text
from kvharness.discovery.presses import misplaced
from kvharness.discovery.resolve import misplaced_number
from kvharness.discovery.spec import EVERY, PolicySpec
from kvharness.errors import ClaimProblem, UsageProblem
from kvharness.items.suites import SUITES
from kvharness.settings.table import contract_settings
from kvharness.statistics.method import Method
from kvharness.statistics.region import Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kvharness.settings.setting import Setting

KEYS = (
    "id", "kind", "policy", "baseline", "suites", "retention", "metric", "margin", "unit",
    "method", "baseline_retention", "control", "family", "settings", "expect", "source", "why",
    "on_request",
)  # fmt: skip
#: Kinds that say that nothing is there to be seen.
_NEEDS_CONTROL = (Kind.NOT_BETTER, Kind.EQUIVALENT)
_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LARGEST_FILE = 2**20
_VERDICTS = tuple(v.value for v in (Verdict.SUPPORTED, Verdict.REFUTED, Verdict.INCONCLUSIVE))


def read_claims(path: Path) -> list[Claim]:
    """The claims of a file, in its order.

    Raises:
        ClaimProblem: the file cannot be read, is not TOML, or a claim is not one; says where.
    """
    tables = enumerate(_tables(path), 1)
    claims = [_claim(Table(path, number, table, KEYS)) for number, table in tables]
    check_ids(claims)
    return claims


def check_ids(claims: Iterable[Claim]) -> None:
    """Refuse two claims of one id, wherever they stand.

    Raises:
        ClaimProblem: names both files and the tables in them.
    """
    seen: dict[str, Claim] = {}
    for claim in claims:
        other = seen.setdefault(claim.id, claim)
        if other is not claim:
            raise ClaimProblem(
                f"two claims have the id {claim.id!r}: [[claim]] {other.table} of "
                f"{other.origin} and [[claim]] {claim.table} of {claim.origin}; rename one"
            )


def _tables(path: Path) -> list[Any]:
    try:
        # Editors on Windows begin a file with a byte order mark, which TOML does not know.
        data = tomllib.loads(_content(path).decode("utf-8-sig"))
    except OSError as error:
        raise ClaimProblem(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: a number of 5000 digits is a plain ValueError.
        raise ClaimProblem(f"{path}: is not TOML: {error}") from None
    unknown = sorted(set(data) - {"claim"})
    tables = data.get("claim", [])
    if unknown or not isinstance(tables, list):
        given = ", ".join(map(shown, unknown)) or "a claim that is no [[claim]] table"
        raise ClaimProblem(f"{path}: {given}: expected [[claim]] tables and nothing else")
    return tables


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise ClaimProblem(f"{path}: is too large: expected a claims file of at most 1 MiB")
    return content


def _claim(table: Table) -> Claim:
    claim = Claim(
        id=_identifier(table),
        kind=table.choice("kind", Kind),
        policy=_policy(table, "policy"),
        baseline=_policy(table, "baseline"),
        suites=table.several("suites", '["qa"]', lambda name: _suite(table, name)),
        retentions=table.several("retention", '["0.25"]', lambda text: _retention(table, text)),
        metric=table.one_of("metric", METRICS),
        margin=table.number("margin"),
        unit=table.choice("unit", Unit, Unit.ITEM),
        method=table.choice("method", Method, Method.AUTO),
        baseline_retention=_baseline_retention(table),
        control=table.text("control", "") or None,
        family=table.text("family", "") or None,
        settings=_settings(table),
        expect=_expect(table),
        source=table.text("source", ""),
        why=table.text("why", ""),
        on_request=table.switch("on_request"),
        origin=str(table.path),
        table=table.ordinal,
    )
    _check(table, claim)
    return claim


def _identifier(table: Table) -> str:
    value = table.text("id")
    if not _ID.fullmatch(value):
        raise table.problem(
            "id", f"{shown(value)}: expected lower-case letters, digits, '.', '+' and '-'"
        )
    return value


def _policy(table: Table, key: str) -> str:
    value = table.text(key)
    try:
        specs = PolicySpec.parse_list(value)
    except UsageProblem:
        specs = []
    if len(specs) != 1:
        raise table.problem(key, f"{shown(value)}: expected one policy such as 'snapkv(window=16)'")
    if value == EVERY:
        raise table.problem(key, f"{shown(value)}: expected one policy, not all of them")
    if problem := misplaced(specs[0]) or misplaced_number(specs[0]):
        raise table.problem(key, f"{shown(value)}: {problem}")
    return value


def _suite(table: Table, name: str) -> str:
    if name not in SUITES:
        raise table.problem("suites", f"{shown(name)}: {expected_one(name, SUITES)}")
    return name


def _retention(table: Table, text: str, key: str = "retention") -> str:
    try:
        return retention_text(parse_retention(text))
    except UsageProblem:
        raise table.problem(
            key, f'{shown(text)}: expected a fraction in (0, 1] in quotes, such as "0.25"'
        ) from None


def _baseline_retention(table: Table) -> str | None:
    text = table.text("baseline_retention", "")
    return _retention(table, text, "baseline_retention") if text else None


def _settings(table: Table) -> dict[str, str | int]:
    found, known = table.mapping("settings"), contract_settings()
    for name, value in found.items():
        if name not in known:
            raise table.problem("settings", f"{shown(name)}: {expected_one(name, known)}")
        wanted = _expected(known[name], value)
        if wanted:
            raise table.problem("settings", f"{name} = {shown(value)}: {wanted}")
    return dict(found)


def _expected(setting: Setting[Any], value: object) -> str:
    """What a setting of the contract may be, unless it is."""
    if setting.choices:
        return "" if value in setting.choices else expected_one(value, setting.choices)
    if setting.switch:
        return "" if isinstance(value, bool) else "expected true or false"
    if not setting.is_number:
        return "" if isinstance(value, str) else "expected text in quotes"
    return "" if type(value) is int and value >= 0 else "expected a whole number"


def _expect(table: Table) -> dict[str, Verdict]:
    found = table.mapping("expect")
    for model, verdict in found.items():
        if verdict not in _VERDICTS:
            wanted = expected_one(verdict, _VERDICTS)
            # Unquoted, expect.llama-3.1 is a table in a table.
            dotted = "; a name with a dot stands in quotes" if isinstance(verdict, dict) else ""
            raise table.problem(f"expect.{shown(model)}", f"{shown(verdict)}: {wanted}{dotted}")
    return {model: Verdict(verdict) for model, verdict in found.items()}


def _check(table: Table, claim: Claim) -> None:
    """What several keys have to agree on."""
    if claim.kind in {Kind.NOT_WORSE, Kind.EQUIVALENT} and claim.margin == 0:
        raise table.problem("margin", f"0: {claim.kind.value} needs a margin above 0")
    if any(each.policy == each.baseline for each in claim.comparisons()):
        raise table.problem("baseline", f"{shown(claim.baseline)} is the policy itself")
    _check_control(table, claim)


def _check_control(table: Table, claim: Claim) -> None:
    if claim.kind is Kind.BETTER and claim.control is not None:
        raise table.problem("control", f"{shown(claim.control)}: better needs none; leave it out")
    if claim.kind in _NEEDS_CONTROL and claim.control is None:
        raise table.problem(
            "control",
            f"is missing: {claim.kind.value} means something only where a difference could be "
            f"seen; expected the id of a claim of kind better, such as oracle-better-than-random",
        )
