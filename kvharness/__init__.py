"""kvharness: claims about KV-cache compression as regression tests.

The public names load on first use, so that importing the pytest plugin costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.lazy import lazy_names

if TYPE_CHECKING:
    from kvharness.contract import Protection
    from kvharness.policy import Capabilities, Needs, Policy, Positions, View, as_policy
    from kvharness.trace import Trace, causal_attention, group_mean, window_attention

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Capabilities": "kvharness.policy",
        "Needs": "kvharness.policy",
        "Policy": "kvharness.policy",
        "Positions": "kvharness.policy",
        "Protection": "kvharness.contract",
        "Trace": "kvharness.trace",
        "View": "kvharness.policy",
        "as_policy": "kvharness.policy",
        "causal_attention": "kvharness.trace",
        "group_mean": "kvharness.trace",
        "window_attention": "kvharness.trace",
    },
)

__all__ = [
    "Capabilities",
    "Needs",
    "Policy",
    "Positions",
    "Protection",
    "Trace",
    "View",
    "as_policy",
    "causal_attention",
    "group_mean",
    "window_attention",
]
