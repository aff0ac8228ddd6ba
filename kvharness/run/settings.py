"""The options of a run, validated."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvharness._messages import typed
from kvharness.contract import (
    DEFAULT_RETENTIONS,
    Contract,
    EvictMode,
    Protection,
    QuestionMode,
    budget_of,
    parse_retention,
)
from kvharness.discovery.spec import EVERY, PolicySpec
from kvharness.errors import UsageProblem
from kvharness.items.suites import SUITES
from kvharness.run.options import OPTIONS, raw_value

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

    import pytest

_LARGEST = 10_000_000


class ClaimsMode(StrEnum):
    """What a run does with claims: fail on a surprise, tell, or nothing."""

    STRICT = "strict"
    REPORT = "report"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to run, in the words of the contract; fields as the options of the same names.

    ``given`` has the names of those that were given, on the command line or in an ini file.
    """

    given: frozenset[str]
    policies: tuple[str, ...]
    retentions: tuple[Fraction, ...]
    seeds: int
    items: int
    contract: Contract
    model: str
    device: str
    dtype: str
    threads: int
    generate: str
    data: tuple[tuple[str, str], ...]
    haystack: Path | None
    hard: bool
    store: Path
    fresh: bool
    masks: bool
    replay: Path | None
    claims: ClaimsMode
    claims_files: tuple[Path, ...]
    shard: tuple[int, int]

    @classmethod
    def of(cls, config: pytest.Config) -> Settings:
        """Read and check all options.

        Raises:
            UsageProblem: one of them makes no sense; says which and what was expected.
        """
        found = {option.name: raw_value(config, option) for option in OPTIONS}
        raw: dict[str, Any] = {
            option.name: found[option.name] or option.default for option in OPTIONS
        }
        for option in OPTIONS:
            if option.choices and raw[option.name] not in option.choices:
                listed = ", ".join(option.choices)
                raise UsageProblem(f"{option.flag} {raw[option.name]!r}: expected one of {listed}")
        here, haystack, replay = config.invocation_params.dir, raw["kv_haystack"], raw["kv_replay"]
        settings = cls(
            given=frozenset(name for name, value in found.items() if value is not None),
            policies=tuple(raw["policy"] or ()),
            retentions=_retentions(raw["retention"] or list(DEFAULT_RETENTIONS)),
            seeds=_count("--kv-seeds", raw["kv_seeds"]),
            items=_count("--kv-items", raw["kv_items"]),
            contract=_contract(raw),
            model=raw["kv_model"],
            device=raw["kv_device"],
            dtype=raw["kv_dtype"],
            threads=_count("--kv-threads", raw["kv_threads"]),
            generate=raw["kv_generate"],
            data=_sources(raw["kv_data"] or ()),
            haystack=_path("--kv-haystack", haystack, here) if haystack else None,
            hard=bool(raw["kv_hard"]),
            store=_path("--kv-store", raw["kv_store"], config.rootpath),
            fresh=bool(raw["kv_fresh"]),
            masks=bool(raw["kv_masks"]),
            replay=_path("--kv-replay", replay, config.rootpath) if replay else None,
            claims=ClaimsMode(raw["kv_claims"]),
            claims_files=tuple(
                _path("--kv-claims-file", text, here) for text in raw["kv_claims_file"] or ()
            ),
            shard=_shard(raw["kv_shard"]),
        )
        if not settings.replay:
            settings.check_budgets()
        if settings.replay and settings.data:
            suite, source = settings.data[0]
            raise UsageProblem(
                f"--kv-data {suite}={source}: a replay has the items of its store; leave it out, "
                f"or run without --kv-replay"
            )
        return settings

    @property
    def retentions_given(self) -> bool:
        return "retention" in self.given

    @property
    def seeds_given(self) -> bool:
        return "kv_seeds" in self.given

    @property
    def demanded(self) -> dict[str, str]:
        """What the records of a replay must be of, by flag: all that was given and is no default.

        ``auto`` demands nothing.
        """
        contract = self.contract.as_dict()
        known = {
            "kv_model": self.model,
            "kv_items": str(self.items),
            "kv_generate": self.generate,
            "kv_dtype": self.dtype,
            "kv_device": self.device.partition(":")[0],
            "kv_threads": str(self.threads),
            "kv_haystack": typed(self.haystack) if self.haystack else "",
            **{f"kv_{name}": str(value) for name, value in contract.items()},
        }
        return {
            f"--{name.replace('_', '-')}": value
            for name, value in known.items()
            if name in self.given and value != "auto"
        }

    @property
    def named(self) -> list[str]:
        """Slugs of the policies that ``--policy`` gave one by one, in their order."""
        return [spec.slug for spec in self._specs if str(spec) != EVERY]

    @property
    def everything(self) -> bool:
        """Whether ``--policy`` asked for all policies."""
        return any(str(spec) == EVERY for spec in self._specs)

    @property
    def _specs(self) -> list[PolicySpec]:
        return [spec for text in self.policies for spec in PolicySpec.parse_list(text)]

    def options(self) -> dict[str, str]:
        """What the contract does not say of how answers are computed, by flag, unless default."""
        given = {
            "--kv-model": self.model,
            "--kv-device": self.device,
            "--kv-dtype": self.dtype,
            "--kv-threads": str(self.threads),
            "--kv-generate": self.generate,
            "--kv-haystack": typed(self.haystack) if self.haystack else "",
        }
        defaults = {option.flag: option.default for option in OPTIONS}
        return {flag: value for flag, value in given.items() if value != defaults[flag]}

    def check_budgets(self) -> None:
        """Every retention must hold the sinks; known before any model is loaded."""
        protection = self.contract.protection
        for retention in self.retentions:
            budget = budget_of(retention, self.contract.context)
            if budget < max(1, protection.sinks):
                raise UsageProblem(
                    f"--retention {float(retention):g} of --kv-context {self.contract.context} "
                    f"keeps {budget} entries a head, which cannot hold the {protection.sinks} "
                    f"sinks; raise one of the two or lower --kv-sinks"
                )
        if protection.total > self.contract.context:
            raise UsageProblem(
                f"--kv-sinks {protection.sinks} and --kv-recents {protection.recents} are more "
                f"than --kv-context {self.contract.context}"
            )


def _retentions(texts: list[str]) -> tuple[Fraction, ...]:
    parsed = [parse_retention(part) for text in texts for part in text.split(",")]
    return tuple(sorted(set(parsed)))


def _contract(raw: dict[str, Any]) -> Contract:
    return Contract(
        context=_count("--kv-context", raw["kv_context"]),
        protection=Protection(
            sinks=_count("--kv-sinks", raw["kv_sinks"], least=0),
            recents=_count("--kv-recents", raw["kv_recents"], least=0),
        ),
        question=QuestionMode(raw["kv_question"]),
        evict=EvictMode(raw["kv_evict"]),
    )


def _count(flag: str, text: str, *, least: int = 1) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= _LARGEST:
        raise UsageProblem(
            f"{flag} {text[:40]!r}: expected a whole number from {least} to {_LARGEST}"
        )
    return int(text)


def _sources(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for suite, source in map(_source, texts):
        other = found.setdefault(suite, source)
        if other != source:
            raise UsageProblem(
                f"--kv-data {suite}={other} and {suite}={source}: expected one source for a suite; "
                f"a folder may hold several files"
            )
    return tuple(found.items())


def _source(text: str) -> tuple[str, str]:
    suite, equals, source = text.partition("=")
    if not (suite and equals and source):
        raise UsageProblem(f"--kv-data {text!r}: expected SUITE=SOURCE such as qa=questions.jsonl")
    real = [name for name, each in SUITES.items() if each.real]
    if suite not in real:
        near = difflib.get_close_matches(suite, real, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageProblem(
            f"--kv-data {suite}=...: real data is for {' or '.join(real)}, not {suite!r}{hint}"
        )
    return suite, source


def _path(flag: str, text: str, base: Path) -> Path:
    try:
        path = base / Path(text).expanduser()
    except RuntimeError:
        raise UsageProblem(f"{flag} {text!r}: there is no such user on this machine") from None
    if "\0" in text:
        raise UsageProblem(f"{flag} {text!r}: expected a path without NUL characters")
    return path


def _shard(text: str) -> tuple[int, int]:
    if not text:
        return (1, 1)
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageProblem(f"--kv-shard {text!r}: expected I/N with I from 1 to N, such as 1/4")
    return int(match[1]), int(match[2])
