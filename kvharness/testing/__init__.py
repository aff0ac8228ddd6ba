"""Checks that a policy keeps its promises, with the strategies they draw from.

``pytest --pyargs kvharness.testing --policy=mine`` runs them without a line of code. The names
load on first use: importing them costs torch and Hypothesis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness._lazy import lazy_names

if TYPE_CHECKING:
    from kvharness.testing import strategies
    from kvharness.testing.catalogue import CHECKS, VERSION, Check, checks_for, left_out
    from kvharness.testing.checks.engine import (
        check_cells_independent,
        check_full_retention_is_identity,
        check_masked_equals_evicted,
    )
    from kvharness.testing.checks.interface import (
        check_dtype_and_device,
        check_finite_scores,
        check_protect_fits,
        check_scores_fit,
    )
    from kvharness.testing.checks.numerics import check_group_order, check_query_chunks
    from kvharness.testing.checks.purity import (
        check_deterministic,
        check_global_state,
        check_inputs_unchanged,
        check_no_state,
        check_seed_does_not_matter,
        check_seed_matters,
        check_sees_only_its_needs,
    )
    from kvharness.testing.checks.repeated import check_survives_repeated_compression
    from kvharness.testing.checks.selection import (
        check_exact_budget,
        check_kept_positions,
        check_nested_budgets,
        check_protected_kept,
    )
    from kvharness.testing.machine import SessionMachine, run_session_machine
    from kvharness.testing.mistake import Mistake
    from kvharness.testing.parametrize import parametrize_with_checks

_CHECKS = "kvharness.testing.checks"
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CHECKS": "kvharness.testing.catalogue",
        "Check": "kvharness.testing.catalogue",
        "Mistake": "kvharness.testing.mistake",
        "SessionMachine": "kvharness.testing.machine",
        "VERSION": "kvharness.testing.catalogue",
        "check_cells_independent": f"{_CHECKS}.engine",
        "check_deterministic": f"{_CHECKS}.purity",
        "check_dtype_and_device": f"{_CHECKS}.interface",
        "check_exact_budget": f"{_CHECKS}.selection",
        "check_finite_scores": f"{_CHECKS}.interface",
        "check_full_retention_is_identity": f"{_CHECKS}.engine",
        "check_global_state": f"{_CHECKS}.purity",
        "check_group_order": f"{_CHECKS}.numerics",
        "check_inputs_unchanged": f"{_CHECKS}.purity",
        "check_kept_positions": f"{_CHECKS}.selection",
        "check_masked_equals_evicted": f"{_CHECKS}.engine",
        "check_nested_budgets": f"{_CHECKS}.selection",
        "check_no_state": f"{_CHECKS}.purity",
        "check_protect_fits": f"{_CHECKS}.interface",
        "check_protected_kept": f"{_CHECKS}.selection",
        "check_query_chunks": f"{_CHECKS}.numerics",
        "check_scores_fit": f"{_CHECKS}.interface",
        "check_seed_does_not_matter": f"{_CHECKS}.purity",
        "check_seed_matters": f"{_CHECKS}.purity",
        "check_sees_only_its_needs": f"{_CHECKS}.purity",
        "check_survives_repeated_compression": f"{_CHECKS}.repeated",
        "checks_for": "kvharness.testing.catalogue",
        "left_out": "kvharness.testing.catalogue",
        "parametrize_with_checks": "kvharness.testing.parametrize",
        "run_session_machine": "kvharness.testing.machine",
        "strategies": "kvharness.testing.strategies",
    },
)

__all__ = [
    "CHECKS",
    "VERSION",
    "Check",
    "Mistake",
    "SessionMachine",
    "check_cells_independent",
    "check_deterministic",
    "check_dtype_and_device",
    "check_exact_budget",
    "check_finite_scores",
    "check_full_retention_is_identity",
    "check_global_state",
    "check_group_order",
    "check_inputs_unchanged",
    "check_kept_positions",
    "check_masked_equals_evicted",
    "check_nested_budgets",
    "check_no_state",
    "check_protect_fits",
    "check_protected_kept",
    "check_query_chunks",
    "check_scores_fit",
    "check_seed_does_not_matter",
    "check_seed_matters",
    "check_sees_only_its_needs",
    "check_survives_repeated_compression",
    "checks_for",
    "left_out",
    "parametrize_with_checks",
    "run_session_machine",
    "strategies",
]
