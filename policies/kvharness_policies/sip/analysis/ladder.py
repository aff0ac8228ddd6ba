"""The oracle ladder: chance, position, the learned scorer, and true future attention."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kvharness import UsageProblem
from kvharness.analysis import ALL, Evidence, Mean, Survey, comparable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

RUNGS = ("random", "position", "sip", "oracle")
METRIC = "recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A policy at a retention: mean over the items of all suites, with its 95 % interval."""

    policy: str
    retention: str
    mean: float
    low: float
    high: float
    units: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(store: Path, *, say: Callable[[str], None]) -> list[Rung]:
    """From the records of a run.

    Raises:
        UsageProblem: the store lacks one of the policies.
        StoreProblem: it cannot be read.
    """
    stored, _, _ = comparable(store, say=say)
    survey = Survey.of(Evidence.of(stored, place=str(store)))
    found = {rung: _slug(survey, rung) for rung in RUNGS}
    missing = [rung for rung, slug in found.items() if slug is None]
    if missing:
        raise UsageProblem(
            f"the store {str(store)!r} has no records of {', '.join(missing)}; run "
            f"pytest suites --policy={','.join(RUNGS[:3])} --kv-store={store}"
        )
    rungs = [slug for slug in found.values() if slug]
    if not _shared(survey, rungs):
        raise UsageProblem(
            f"the store {str(store)!r} has no retention at which all of {', '.join(rungs)} have "
            f"{METRIC}; run them together, with full and floor beside them"
        )
    return [rung for slug in rungs for rung in _of(survey, slug, _shared(survey, rungs))]


def _shared(survey: Survey, rungs: Sequence[str]) -> list[str]:
    """Retentions at which every rung was measured."""
    return [
        retention
        for retention in survey.retentions
        if all(survey.values(ALL, rung, retention, METRIC) for rung in rungs)
    ]


def _slug(survey: Survey, rung: str) -> str | None:
    """A policy as it was run: by its name alone, or with parameters such as other weights."""
    if rung in survey.policies:
        return rung
    return next((slug for slug in survey.policies if slug.partition("+")[0] == rung), None)


def _of(survey: Survey, policy: str, retentions: Sequence[str]) -> list[Rung]:
    found = []
    for retention in retentions:
        mean = Mean.of(survey.values(ALL, policy, retention, METRIC).values())
        if mean is not None and mean.interval is not None:
            found.append(
                Rung(
                    policy=policy,
                    retention=retention,
                    mean=mean.mean,
                    low=mean.interval.low,
                    high=mean.interval.high,
                    units=mean.units,
                )
            )
    return found
