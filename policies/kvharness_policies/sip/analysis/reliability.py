"""How often a token is important where a scorer says so: reliability, and cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy

from kvharness_policies.sip.network import trained_network
from kvharness_policies.sip.scorer import HORIZONS
from kvharness_policies.sip.training import batch_of, every_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from kvharness.training import Checkpoint
    from kvharness_policies.sip.collection import Collection
    from kvharness_policies.sip.network import Network

BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """One scorer on held-out text: a row for each passage.

    Attributes:
        variant: of the weights.
        seed: of the training.
        bce: cross-entropy in nats by horizon, ``[passages, 4]``.
        counts: tokens by bin of the prediction at the longest horizon, ``[passages, 10]``.
        predicted: sums of the predictions of each bin.
        observed: how many of its tokens were important.
    """

    variant: str
    seed: int
    bce: NDArray[np.float64]
    counts: NDArray[np.float64]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]

    def as_dict(self) -> dict[str, Any]:
        rows = {name: getattr(self, name).round(6).tolist() for name in _ROWS}
        return {"variant": self.variant, "seed": self.seed, **rows}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        rows = {name: np.array(content[name], dtype=np.float64) for name in _ROWS}
        return cls(variant=content["variant"], seed=content["seed"], **rows)


_ROWS = ("bce", "counts", "predicted", "observed")


def expected_calibration_error(
    counts: NDArray[np.float64], predicted: NDArray[np.float64], observed: NDArray[np.float64]
) -> float:
    """Mean distance of prediction and outcome over the bins, weighed by their tokens.

    The same bins as are drawn: ``sum_b n_b / N |predicted_b - observed_b|`` with means of bins.

    Args:
        counts: tokens of each bin, ``[..., bins]``; leading axes are added up first.
        predicted: sums of predictions.
        observed: numbers of important tokens.
    """
    rows = [each.reshape(-1, each.shape[-1]).sum(axis=0) for each in (counts, predicted, observed)]
    tokens, forecast, came = rows
    return float(np.abs(forecast - came).sum() / tokens.sum())


def measure(
    collection: Collection,
    checkpoints: Sequence[Checkpoint],
    *,
    device: torch.device,
    progress: Callable[[Sequence[Checkpoint]], Iterable[Checkpoint]],
) -> list[Reliability]:
    """Every scorer on every held-out window."""
    return [_one(collection, checkpoint, device) for checkpoint in progress(checkpoints)]


def _one(collection: Collection, checkpoint: Checkpoint, device: torch.device) -> Reliability:
    manifest = checkpoint.manifest
    scorer = trained_network(checkpoint).to(device)
    passages = collection.passages(held_out=True)
    rows: list[NDArray[np.float64]] = []
    for numbers in passages.values():
        found = [_window(scorer, collection, number, device) for number in numbers]
        rows.append(np.mean(found, axis=0))
    table = np.stack(rows)
    ends = np.cumsum([len(HORIZONS), BINS, BINS])
    parts = np.split(table, ends, axis=1)
    named = dict(zip(_ROWS, parts, strict=True))
    return Reliability(variant=manifest.variant, seed=manifest.seed, **named)


@torch.no_grad()
def _window(
    scorer: Network, collection: Collection, number: int, device: torch.device
) -> NDArray[np.float64]:
    heads, labels = batch_of([every_head(collection.read(number))], device)
    predicted = scorer(heads).important.sigmoid()
    bce = torch.stack(
        [
            binary_cross_entropy(predicted[..., ahead], labels[..., ahead].float())
            for ahead in range(len(HORIZONS))
        ]
    )
    return torch.cat((bce.double(), *_bins(predicted[..., -1], labels[..., -1]))).cpu().numpy()


def _bins(predicted: Tensor, labels: Tensor) -> list[Tensor]:
    chosen = (predicted * BINS).long().clamp(max=BINS - 1).flatten()
    weights = (torch.ones_like(predicted), predicted, labels.float())
    return [
        torch.bincount(chosen, weights=each.flatten().double(), minlength=BINS) for each in weights
    ]
