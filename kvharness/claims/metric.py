"""The numbers of a record that claims speak of, signed so that more is better."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from kvharness.contract import Anchor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kvharness.record import Record

#: Each question's metrics, averaged; those of generated text are there where text was generated.
RECORDED = (
    "exact",
    "slot_accuracy",
    "nll",
    "agreement",
    "f1",
    "contains",
    "rouge_l",
    "fact_recall",
)
DERIVED = ("score", "recovered", "evidence_kept", "bytes")
METRICS = (*RECORDED, *DERIVED)
_LESS_IS_BETTER = {"nll", "bytes"}
#: A paired standard deviation where nothing is recorded yet: measured on 12 documents with the
#: embedded model for `recovered` and `nll`; for shares half a point is the largest there is.
TYPICAL_SD = {"recovered": 0.25, "nll": 1.0}


def sign(metric: str) -> int:
    return -1 if metric in _LESS_IS_BETTER else 1


def value(record: Record, metric: str) -> float | None:
    """A metric of one record, as recorded; None where it was not measured.

    ``recovered`` is no metric of one record: see `Scale`.
    """
    match metric:
        case "score":
            return record.score
        case "evidence_kept":
            return record.evidence_kept
        case "bytes":
            return float(record.cache_bytes)
        case _:
            return record.metrics.get(metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Negative log-likelihood in units of a suite's mean gap between `floor` and `full`.

    ``recovered`` is 1 at the full cache's mean and 0 at that of sinks and recents alone. The gap
    is a constant of the suite, so that differences stay paired.
    """

    floor: float
    full: float

    @classmethod
    def of(cls, anchors: Mapping[str, Iterable[Record]]) -> Scale | str:
        """The scale of a suite's anchor records, or why there is none."""
        by_item = {
            name: {record.item: record.metrics["nll"] for record in records}
            for name, records in anchors.items()
        }
        floor, full = by_item.get(Anchor.FLOOR, {}), by_item.get(Anchor.FULL, {})
        both = sorted(set(floor) & set(full))
        if not both:
            return "recovered needs the records of full and floor on the same items"
        gaps = np.array([floor[item] - full[item] for item in both])
        if not _surely_positive(gaps):
            return "no headroom: the nll of full and floor cannot be told apart"
        return cls(
            floor=fmean(floor[item] for item in both), full=fmean(full[item] for item in both)
        )

    def recovered(self, nll: float) -> float:
        return (self.floor - nll) / (self.floor - self.full)


def _surely_positive(gaps: np.ndarray) -> bool:
    from scipy import stats  # noqa: PLC0415 - collecting tests needs no scipy

    if len(gaps) < 2 or np.ptp(gaps) == 0:
        return bool(gaps.min() > 0)
    return bool(stats.ttest_1samp(gaps, 0, alternative="greater").pvalue < 0.05)
