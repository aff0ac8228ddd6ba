"""Commands that judge a claim again, and that measure it as the evidence was measured."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from kvharness._messages import typed
from kvharness.claims.find import PACKAGE, found_unasked, suites_folder
from kvharness.items.suites import SUITES, is_default
from kvharness.records.packing import is_packed
from kvharness.settings.setting import as_text
from kvharness.settings.table import SettingTable, by_flag, contract_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvharness.claims.claim import Claim
    from kvharness.claims.evidence import Evidence


def judging(claim: Claim, evidence: Evidence) -> str:
    """One line to copy."""
    file = [] if found_unasked(claim.origin) else ["--file", claim.origin]
    return _line("kvharness", "claims", evidence.place or "STORE", *file, "--claim", claim.id)


def measuring(claim: Claim, evidence: Evidence) -> str:
    """One line to copy; options that have their default values are left out."""
    retentions = dict.fromkeys([*claim.retentions, *filter(None, [claim.baseline_retention])])
    return _line(
        "pytest",
        *_where(claim),
        f"--policy={claim.policy},{claim.baseline}",
        f"--retention={','.join(retentions)}",
        *_options(claim, evidence),
        *_suites(claim),
    )


def _where(claim: Claim) -> list[str]:
    """The suites: in a wheel they are a package, in a checkout a folder."""
    alone = [SUITES[name].module for name in claim.suites if SUITES[name].alone]
    modules = alone if len(alone) == len(claim.suites) else ["", *alone]
    folder = suites_folder()
    if folder.parent == PACKAGE:
        return ["--pyargs", *(".".join(filter(None, ["kvharness.suites", m])) for m in modules)]
    return [typed(folder / f"{module}.py" if module else folder) for module in modules]


def _line(*words: str) -> str:
    return " ".join(map(shlex.quote, words))


def _options(claim: Claim, evidence: Evidence) -> Iterator[str]:
    known = by_flag()
    for flag, text in _given(claim, evidence).items():
        # A store of a later version may name options that there are not here.
        if flag in known and text != known[flag].default:
            yield known[flag].word(text)
    for suite, source in evidence.data.items():
        if suite in claim.suites:
            yield SettingTable.data.word(f"{suite}={source}")
    store = SettingTable.store
    if evidence.place not in {"", store.default} and not is_packed(Path(evidence.place)):
        yield store.word(evidence.place)
    if not found_unasked(claim.origin):
        yield SettingTable.claims_files.word(claim.origin)


def _given(claim: Claim, evidence: Evidence) -> dict[str, str]:
    """What the evidence was measured with, by flag."""
    seeds, items = evidence.drawn(claim.policies[0].slug)
    size = {SettingTable.seeds.flag: str(seeds), SettingTable.items.flag: str(items)}
    return {
        SettingTable.model.flag: evidence.model,
        **(size if seeds else {}),
        **{
            each.flag: as_text(evidence.contract[name])
            for name, each in contract_settings().items()
            if name in evidence.contract
        },
        SettingTable.evict.flag: claim.evict,
        **evidence.options,
    }


def _suites(claim: Claim) -> Iterator[str]:
    """What selects them; nothing where they are those of every run, or a file of their own."""
    every = set(filter(is_default, SUITES))
    asked = {name for name in claim.suites if not SUITES[name].alone}
    if any(SUITES[name].hard for name in asked):
        yield SettingTable.hard.flag
    elif not asked or asked >= every:
        return
    yield "-k"
    yield " or ".join(SUITES[name].test for name in claim.suites)
