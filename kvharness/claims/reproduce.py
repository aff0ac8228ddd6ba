"""The pytest command that measures what a claim compares, as the evidence was measured."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kvharness.options import OPTIONS
from kvharness.suite import SUITES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kvharness.claims.claim import Claim
    from kvharness.claims.evidence import Evidence

_DEFAULTS = {option.flag: option.default for option in OPTIONS}


def command(claim: Claim, evidence: Evidence) -> str:
    """One line to copy; options that have their default values are left out."""
    retentions = dict.fromkeys([*claim.retentions, *filter(None, [claim.baseline_retention])])
    words = [
        "pytest",
        "suites",
        f"--policy={claim.policy},{claim.baseline}",
        f"--retention={','.join(retentions)}",
        *_options(claim, evidence),
        *_suites(claim),
    ]
    return " ".join(map(shlex.quote, words))


def _options(claim: Claim, evidence: Evidence) -> Iterator[str]:
    seeds, items = evidence.drawn(claim.policies[0].slug)
    given: Mapping[str, object] = {
        "--kv-model": evidence.model,
        **({"--kv-seeds": seeds, "--kv-items": items} if seeds else {}),
        **{f"--kv-{name}": value for name, value in evidence.contract.items()},
    }
    for flag, value in given.items():
        if str(value) != _DEFAULTS[flag]:
            yield f"{flag}={value}"
    for suite, source in evidence.data.items():
        if suite in claim.suites:
            yield f"--kv-data={suite}={source}"


def _suites(claim: Claim) -> Iterator[str]:
    """What selects them; nothing where they are those of every run."""
    if any(SUITES[name].hard for name in claim.suites):
        yield "--kv-hard"
    elif set(claim.suites) >= {name for name, suite in SUITES.items() if not suite.hard}:
        return
    yield "-k"
    yield " or ".join(f"test_{name.replace('-', '_')}" for name in claim.suites)
