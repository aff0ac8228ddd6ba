"""Training learned policies: what a trainer of another package builds on.

A trainer is an entry point of ``kvharness.trainers``; ``kvharness train NAME`` runs it. The names
load on first use: importing them costs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness._lazy import lazy_names

if TYPE_CHECKING:
    from kvharness.errors import TrainingProblem
    from kvharness.model.loaded import Runtime
    from kvharness.model.prefill import prefill
    from kvharness.model.prefilled import Prefilled
    from kvharness.training.checkpoint import Checkpoint, all_checkpoints, find_checkpoint
    from kvharness.training.continuation import continuations, retained
    from kvharness.training.gated import read_gated
    from kvharness.training.job import Job, Trainer
    from kvharness.training.manifest import Manifest
    from kvharness.training.number import count
    from kvharness.training.observe import WindowLayer, observe_window
    from kvharness.training.window import Window

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Checkpoint": "kvharness.training.checkpoint",
        "Job": "kvharness.training.job",
        "Manifest": "kvharness.training.manifest",
        "Prefilled": "kvharness.model.prefilled",
        "Runtime": "kvharness.model.loaded",
        "Trainer": "kvharness.training.job",
        "TrainingProblem": "kvharness.errors",
        "Window": "kvharness.training.window",
        "WindowLayer": "kvharness.training.observe",
        "all_checkpoints": "kvharness.training.checkpoint",
        "continuations": "kvharness.training.continuation",
        "count": "kvharness.training.number",
        "find_checkpoint": "kvharness.training.checkpoint",
        "observe_window": "kvharness.training.observe",
        "prefill": "kvharness.model.prefill",
        "read_gated": "kvharness.training.gated",
        "retained": "kvharness.training.continuation",
    },
)

__all__ = [
    "Checkpoint",
    "Job",
    "Manifest",
    "Prefilled",
    "Runtime",
    "Trainer",
    "TrainingProblem",
    "Window",
    "WindowLayer",
    "all_checkpoints",
    "continuations",
    "count",
    "find_checkpoint",
    "observe_window",
    "prefill",
    "read_gated",
    "retained",
]
