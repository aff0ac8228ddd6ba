"""Files of records as runs write them, made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from kvharness.records.record import Record, Seconds

RECORD = Record(
    key="k",
    suite="needle",
    policy="snapkv",
    retention="0.25",
    seed=0,
    item="needle-s0-00",
    item_digest="d",
    variant="",
    score=1.0,
    score_name="exact",
    metrics={"exact": 1.0, "nll": 0.5},
    questions=(),
    evidence_kept=None,
    realised_retention=0.25,
    kept=(100,),
    tokens=400,
    cache_bytes=1,
    mask_digest=("m",),
    seconds=Seconds(prefill=0.0, select=0.0, decode=0.0),
)


SETTINGS: dict[str, Any] = {
    "engine": "e1",
    "model": {"name": "tiny", "digest": "abc", "dtype": "float32", "device": "cpu", "threads": "1"},
    "contract": {
        "context": 400,
        "sinks": 3,
        "recents": 5,
        "question": "seen",
        "evict": "prefill",
    },
    "generate": "none",
    "data": {},
    "seeds": 2,
    "items": 2,
    "policies": {"snapkv": {"source": "s1"}},
}


class Keep(Protocol):
    """Write a file of records as one run does; ``changes`` are of its settings."""

    def __call__(self, *records: Record, second: int = ..., **changes: Any) -> None: ...


def a_record(key: str, **changes: Any) -> Record:
    return replace(RECORD, key=key, **changes)
