"""kvharness: claims about KV-cache compression as regression tests.

The public names load on first use, so that importing the pytest plugin costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness._lazy import lazy_names

if TYPE_CHECKING:
    from kvharness.contract import Protection
    from kvharness.policy.attention_maps import (
        causal_attention,
        group_mean,
        probe_attention,
        window_attention,
    )
    from kvharness.policy.budgets import Scope, exact_budgets, shared_budgets
    from kvharness.policy.interface import LoadedModel, Policy, as_policy
    from kvharness.policy.probe import Ends, Probe, Probed, RandomTokens, Repeat, Text
    from kvharness.policy.trace import Trace
    from kvharness.policy.view import Capabilities, Needs, Positions, Step, View
    from kvharness.pretrained.find import ModelSource

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Capabilities": "kvharness.policy.view",
        "Ends": "kvharness.policy.probe",
        "LoadedModel": "kvharness.policy.interface",
        "ModelSource": "kvharness.pretrained.find",
        "Needs": "kvharness.policy.view",
        "Policy": "kvharness.policy.interface",
        "Positions": "kvharness.policy.view",
        "Probe": "kvharness.policy.probe",
        "Probed": "kvharness.policy.probe",
        "Protection": "kvharness.contract",
        "RandomTokens": "kvharness.policy.probe",
        "Repeat": "kvharness.policy.probe",
        "Scope": "kvharness.policy.budgets",
        "Step": "kvharness.policy.view",
        "Text": "kvharness.policy.probe",
        "Trace": "kvharness.policy.trace",
        "View": "kvharness.policy.view",
        "as_policy": "kvharness.policy.interface",
        "causal_attention": "kvharness.policy.attention_maps",
        "exact_budgets": "kvharness.policy.budgets",
        "group_mean": "kvharness.policy.attention_maps",
        "probe_attention": "kvharness.policy.attention_maps",
        "shared_budgets": "kvharness.policy.budgets",
        "window_attention": "kvharness.policy.attention_maps",
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
