"""The numbers of a record that claims speak of, signed so that more is better."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from kvharness.contract import Anchor
from kvharness.statistics.method import Method

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kvharness.records.record import Record

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
#: 1 or 0 for an item of one question: exact methods take them, and those need no 20 items.
MAYBE_BINARY = {"exact", "contains", "score"}
#: A paired standard deviation where nothing is recorded yet: measured on 12 documents with the
#: embedded model for `recovered` and `nll`, large for the others, which are shares. Bytes have
#: none that holds for all models.
TYPICAL_SD = {
    **dict.fromkeys({*METRICS} - {"bytes"}, 0.5),
    "recovered": 0.25,
    "nll": 1.0,
}


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
        floor = nll_by_item(anchors.get(Anchor.FLOOR, ()))
        full = nll_by_item(anchors.get(Anchor.FULL, ()))
        both = sorted(floor.keys() & full.keys())
        if not both:
            return "recovered needs the records of full and floor on the same items"
        if not _surely_positive([floor[item] - full[item] for item in both]):
            return "no headroom: the nll of full and floor cannot be told apart"
        return cls(
            floor=fmean(floor[item] for item in both), full=fmean(full[item] for item in both)
        )

    def recovered(self, nll: float) -> float:
        return (self.floor - nll) / (self.floor - self.full)


def nll_by_item(records: Iterable[Record]) -> dict[str, float]:
    """An item that several seeds drew counts once, with its mean."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        # A store that another tool wrote or cut may lack it.
        if (nll := record.metrics.get("nll")) is not None:
            found[record.item_digest].append(nll)
    return {item: fmean(numbers) for item, numbers in found.items()}


def _surely_positive(gaps: Sequence[float]) -> bool:
    from kvharness.statistics.estimate import Sample  # noqa: PLC0415 - collecting needs no scipy

    return Sample.of(gaps, method=Method.T).interval().low > 0
