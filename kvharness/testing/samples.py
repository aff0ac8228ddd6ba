"""Whether the cases of the kit can show what a policy observes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from kvharness.policy.observation.base import Observation
from kvharness.testing.tensors import Shape, Texture, draw_layer

if TYPE_CHECKING:
    from kvharness.policy.observation.base import Observations

_SHAPE = Shape(layers=1, heads=4, kv_heads=2, tokens=9, size=4)


def unsampled(needs: Observations) -> str:
    """Why cases cannot be drawn for these needs; empty if they can.

    Observations with a `sample` of their own are drawn: if that fails, a check fails.
    """
    reasons = filter(None, map(_reason, sorted(needs, key=str)))
    return next(reasons, "")


@cache
def _reason(observation: Observation[Any]) -> str:
    if type(observation).sample is not Observation.sample:
        return ""
    layer = draw_layer(_SHAPE, Texture.PLAIN, torch.float32, torch.Generator().manual_seed(0))
    try:
        layer.observed({observation})
    except Exception as problem:  # noqa: BLE001 - a stranger's code, written for a whole model
        reason = f"{problem}" or type(problem).__name__
        return f"{observation} cannot be drawn ({reason}); give it a method sample(drawn)"
    return ""
