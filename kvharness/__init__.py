"""kvharness: claims about KV-cache compression as regression tests.

The public names load on first use, so that importing the pytest plugin costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.lazy import lazy_names

if TYPE_CHECKING:
    from kvharness.budgets import Scope, exact_budgets, shared_budgets
    from kvharness.contract import Protection
    from kvharness.model import ModelSource
    from kvharness.policy import (
        Capabilities,
        LoadedModel,
        Needs,
        Policy,
        Positions,
        Step,
        View,
        as_policy,
    )
    from kvharness.probe import Ends, Probe, Probed, RandomTokens, Repeat, Text
    from kvharness.trace import (
        Trace,
        causal_attention,
        group_mean,
        probe_attention,
        window_attention,
    )

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Capabilities": "kvharness.policy",
        "Ends": "kvharness.probe",
        "LoadedModel": "kvharness.policy",
        "ModelSource": "kvharness.model",
        "Needs": "kvharness.policy",
        "Policy": "kvharness.policy",
        "Positions": "kvharness.policy",
        "Probe": "kvharness.probe",
        "Probed": "kvharness.probe",
        "Protection": "kvharness.contract",
        "RandomTokens": "kvharness.probe",
        "Repeat": "kvharness.probe",
        "Scope": "kvharness.budgets",
        "Step": "kvharness.policy",
        "Text": "kvharness.probe",
        "Trace": "kvharness.trace",
        "View": "kvharness.policy",
        "as_policy": "kvharness.policy",
        "causal_attention": "kvharness.trace",
        "exact_budgets": "kvharness.budgets",
        "group_mean": "kvharness.trace",
        "probe_attention": "kvharness.trace",
        "shared_budgets": "kvharness.budgets",
        "window_attention": "kvharness.trace",
    },
)

__all__ = [
    "Capabilities",
    "Ends",
    "LoadedModel",
    "ModelSource",
    "Needs",
    "Policy",
    "Positions",
    "Probe",
    "Probed",
    "Protection",
    "RandomTokens",
    "Repeat",
    "Scope",
    "Step",
    "Text",
    "Trace",
    "View",
    "as_policy",
    "causal_attention",
    "exact_budgets",
    "group_mean",
    "probe_attention",
    "shared_budgets",
    "window_attention",
]
