"""Every check on the policies of ``--policy``: ``pytest --pyargs kvharness.testing``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvharness.discovery import registry
from kvharness.discovery.presses import is_press
from kvharness.discovery.resolve import resolve
from kvharness.errors import KvharnessError, UsageProblem
from kvharness.plugin.names import PROBLEM
from kvharness.run.options import given_texts
from kvharness.settings.table import SettingTable
from kvharness.testing.mistake import Mistake
from kvharness.testing.parametrize import note_left_out, parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.policy.interface import Policy
    from kvharness.testing.catalogue import Check


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    named: dict[str, Policy] = {}
    try:
        named = _policies(given_texts(metafunc.config, SettingTable.policies))
    except KvharnessError as error:
        # Raised here, it would be a collection error with a traceback through pytest.
        metafunc.config.stash[PROBLEM] = pytest.UsageError(str(error))
        if hasattr(metafunc.config, "workerinput"):
            raise pytest.Collector.CollectError(str(error)) from None
    note_left_out(metafunc.function, named)
    metafunc.parametrize(("policy", "check"), parameters(named, {}))


def _policies(texts: Sequence[str]) -> dict[str, Policy]:
    known = registry.installed()
    specs = resolve(texts, known)
    for spec in filter(is_press, specs):
        raise UsageProblem(
            f"--policy {spec}: a press runs on a real prefill only, so the kit cannot draw cases "
            f"for it; leave it out"
        )
    return {spec.slug: registry.load(spec, known).policy for spec in specs}


def test_policy(policy: Policy, check: Check) -> None:
    told = _told(policy, check)
    if told is not None:
        # The traceback would lead through Hypothesis and this package, not through the policy.
        pytest.fail(told, pytrace=False)


def _told(policy: Policy, check: Check) -> str | None:
    try:
        check(policy)
    except Mistake as mistake:
        return mistake.told()
    return None
