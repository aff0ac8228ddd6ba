"""Commands that judge a claim again, and that measure it as the evidence was measured."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from kvharness._messages import typed
from kvharness.claims.find import PACKAGE, found_unasked, suites_folder
from kvharness.items.suites import SUITES, is_default
from kvharness.records.packing import is_packed
from kvharness.run.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kvharness.claims.claim import Claim
    from kvharness.claims.evidence import Evidence

_DEFAULTS = {option.flag: option.default for option in OPTIONS}


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
    seeds, items = evidence.drawn(claim.policies[0].slug)
    given: Mapping[str, object] = {
        "--kv-model": evidence.model,
        **({"--kv-seeds": seeds, "--kv-items": items} if seeds else {}),
        **{f"--kv-{name}": value for name, value in evidence.contract.items()},
        "--kv-evict": claim.evict,
        **evidence.options,
    }
    for flag, value in given.items():
        # A store of a later version may name options that there are not here.
        if str(value) != _DEFAULTS.get(flag, str(value)):
            yield f"{flag}={value}"
    for suite, source in evidence.data.items():
        if suite in claim.suites:
            yield f"--kv-data={suite}={source}"
    if evidence.place not in {"", _DEFAULTS["--kv-store"]} and not is_packed(Path(evidence.place)):
        yield f"--kv-store={evidence.place}"
    if not found_unasked(claim.origin):
        yield f"--kv-claims-file={claim.origin}"


def _suites(claim: Claim) -> Iterator[str]:
    """What selects them; nothing where they are those of every run, or a file of their own."""
    every = set(filter(is_default, SUITES))
    asked = {name for name in claim.suites if not SUITES[name].alone}
    if any(SUITES[name].hard for name in asked):
        yield "--kv-hard"
    elif not asked or asked >= every:
        return
    yield "-k"
    yield " or ".join(SUITES[name].test for name in claim.suites)
