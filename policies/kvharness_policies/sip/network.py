"""Which network a shape stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness_policies.sip.notebook import NotebookScorer
from kvharness_policies.sip.scorer import NOTEBOOK, Scorer, Shape

if TYPE_CHECKING:
    from kvharness.training import Checkpoint

Network = Scorer | NotebookScorer


def new_network(shape: Shape) -> Network:
    """With fresh weights from torch's generator."""
    return NotebookScorer(shape) if shape.mode == NOTEBOOK else Scorer(shape)


def trained_network(checkpoint: Checkpoint) -> Network:
    """With stored weights.

    Raises:
        TrainingProblem: the file is damaged, or holds weights of something else.
    """
    return checkpoint.network(lambda made: new_network(Shape(**made["shape"]))).eval()
