"""Made-up runs: 5 seeds of 12 items, and whatever was kept, right or wrong is given by the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest

from kvharness.claims.claim import Claim, Column
from kvharness.claims.evidence import Evidence
from kvharness.records.header import Header
from kvharness.records.record import Record, Seconds
from kvharness.records.store import Stored, Writer
from kvharness.statistics.region import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

SEEDS, ITEMS = 5, 12
UNITS = SEEDS * ITEMS
FLOOR, FULL = 5.0, 1.0
CONTRACT: dict[str, Any] = {
    "context": 1024,
    "sinks": 4,
    "recents": 16,
    "question": "unseen",
    "evict": "prefill",
}


def claim(**changes: Any) -> Claim:
    """`snapkv` better than `random` in nll, on qa at a quarter of the cache."""
    values: dict[str, Any] = {
        "id": "mine",
        "kind": Kind.BETTER,
        "policy": "snapkv",
        "baseline": "random",
        "suites": ("qa",),
        "retentions": ("0.25",),
        "metric": "nll",
        "origin": "claims.toml",
    }
    return Claim(**{**values, **changes})


def record(column: Column, *, seed: int, item: int, suite: str = "qa", **changes: Any) -> Record:
    name = f"{suite}-s{seed}-{item:02d}"
    values: dict[str, Any] = {
        "key": f"{column}-{name}",
        "suite": suite,
        "policy": column.policy,
        "retention": column.retention,
        "seed": seed,
        "item": name,
        "item_digest": f"of {name}",
        "variant": "",
        "score": 0.0,
        "score_name": "exact",
        "metrics": {"exact": 0.0, "nll": FLOOR},
        "questions": (),
        "evidence_kept": None,
        "realised_retention": 0.25,
        "kept": (4,),
        "tokens": 16,
        "cache_bytes": 64,
        "mask_digest": ("mask",),
        "seconds": Seconds(prefill=0.0, select=0.0, decode=0.0),
    }
    return Record(**{**values, **changes})


def spread(
    *, mean: float = 0.0, sd: float = 1.0, units: int = UNITS, seed: int = 0
) -> NDArray[np.float64]:
    """Numbers that have exactly this mean and standard deviation."""
    if units == 1:
        return np.array([mean])
    numbers = np.random.default_rng(seed).normal(size=units)
    numbers = numbers - numbers.mean()
    return np.asarray(numbers / numbers.std(ddof=1) * sd + mean)


class Made:
    """Records of one run; ``settings`` change its header."""

    def __init__(self, *, seeds: int = SEEDS, items: int = ITEMS, **settings: Any) -> None:
        self.seeds, self.items = seeds, items
        self.records: list[Record] = []
        self.settings: dict[str, Any] = {
            "model": {"name": "tiny", "digest": "d", "dtype": "float32", "device": "cpu"},
            "contract": CONTRACT,
            "data": {},
            "seeds": seeds,
            "items": items,
            **settings,
        }

    @property
    def units(self) -> int:
        return self.seeds * self.items

    def run(
        self,
        policy: str,
        retention: str | None = None,
        *,
        nll: ArrayLike = FLOOR,
        suite: str = "qa",
        metrics: Mapping[str, ArrayLike] | None = None,
    ) -> Self:
        """All items of a cell, seed by seed; each metric is a number for all or one for each."""
        column = Column(policy, retention)
        numbers = {
            name: np.broadcast_to(np.asarray(given, dtype=float), (self.units,))
            for name, given in {"nll": nll, **(metrics or {})}.items()
        }
        for unit in range(self.units):
            seed, item = divmod(unit, self.items)
            found = {name: float(values[unit]) for name, values in numbers.items()}
            self.records.append(
                record(column, seed=seed, item=item, suite=suite, metrics=found, score=found["nll"])
            )
        return self

    def anchors(self, suite: str = "qa") -> Self:
        """`floor` and `full`, so that `recovers` gives what it says."""
        return self.run("floor", nll=FLOOR, suite=suite).run("full", nll=FULL, suite=suite)

    def recovers(self, policy: str, retention: str, share: ArrayLike, suite: str = "qa") -> Self:
        """A cell with this share of the gap between `floor` and `full`."""
        nll = FLOOR - (FLOOR - FULL) * np.asarray(share, dtype=float)
        return self.run(policy, retention, nll=nll, suite=suite)

    def drop(self, *, policy: str, seed: int, items: Iterable[int] = (0,)) -> Self:
        """Lose records."""
        gone = {f"-s{seed}-{item:02d}" for item in items}
        self.records = [
            each
            for each in self.records
            if each.policy != policy or not any(each.item.endswith(end) for end in gone)
        ]
        return self

    @property
    def header(self) -> Header:
        policies = {each.policy: {"policy": each.policy} for each in self.records}
        return Header(
            run="run",
            created="2026-01-01T00:00:00+00:00",
            versions={},
            machine={},
            git={},
            settings={"policies": policies, **self.settings},
        )

    def stored(self) -> list[Stored]:
        header = self.header
        return [Stored(each, header) for each in self.records]

    def evidence(self, **given: Any) -> Evidence:
        return Evidence.of(self.stored(), **given)

    def write(self, folder: Path) -> Path:
        """As a store on disk."""
        with Writer(folder, self.header) as writer:
            for each in self.records:
                writer.append(each)
        return folder


def pair(
    difference: ArrayLike, *, metric: str = "nll", base: ArrayLike | None = None, **given: Any
) -> Made:
    """`snapkv` and `random` at 0.25 on qa, whose paired differences are these; + is better."""
    made = Made(**given)
    numbers = np.broadcast_to(np.asarray(difference, dtype=float), (made.units,))
    common = spread(mean=3.0, units=made.units, seed=1) if base is None else np.asarray(base)
    signed = -numbers if metric == "nll" else numbers
    made.run("snapkv", "0.25", metrics={metric: common + signed})
    return made.run("random", "0.25", metrics={metric: common})


@pytest.fixture
def claims_file(tmp_path: Path) -> Path:
    """A place for one."""
    return tmp_path / "claims.toml"
