"""What a trainer takes from the engine: the model, and a context that it has read."""

from __future__ import annotations

from kvharness.errors import TrainingProblem
from kvharness.model.context_reading import prefill
from kvharness.model.loaded import Runtime
from kvharness.model.prefilled import Prefilled

__all__ = ["Prefilled", "Runtime", "TrainingProblem", "prefill"]
