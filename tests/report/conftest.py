"""A laboratory of made-up records, and a reader of the pages made from them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.claims.claim import Claim
from kvharness.claims.evidence import Evidence
from kvharness.records.header import Header
from kvharness.records.record import QuestionRecord, Record, Seconds
from kvharness.records.store import Stored
from kvharness.statistics.region import Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RETENTIONS = ("0.1", "0.5")
#: How good each is where half the cache is kept; h2o and knorm are the same.
QUALITY = {
    "full": 1.0,
    "floor": 0.0,
    "oracle": 0.97,
    "h2o": 0.5,
    "keydiff": 0.8,
    "knorm": 0.5,
    "random": 0.45,
    "snapkv": 0.2,
}
SUITES = {"needle": ("exact", 1), "qa": ("exact", 4), "summarization": ("slot_accuracy", 1)}
HEADER = Header(
    run="r1",
    created="2026-01-02T03:04:05+00:00",
    versions={"python": "3.11.7", "torch": "2.13.0"},
    machine={"processor": "a processor", "platform": "a platform", "cores": 2},
    git={"commit": "0123456789abcdef", "dirty": True},
    settings={
        "model": {"name": "tiny", "note": "made up", "dtype": "float32", "device": "cpu"},
        "contract": {
            "context": 1024,
            "sinks": 4,
            "recents": 16,
            "question": "unseen",
            "evict": "prefill",
        },
        "seeds": 2,
        "items": 12,
        "generate": "first",
        "data": {},
        "policies": {
            name: {
                "policy": name,
                "distribution": "some-policies",
                "version": "1.2",
                "source": "feedbeef",
                "parameters": json.dumps({"window": 8}),
            }
            for name in QUALITY
        },
    },
)


@dataclass(frozen=True)
class Lab:
    """Makes records of policies whose quality is known."""

    header: Header = HEADER
    quality: dict[str, float] = field(default_factory=lambda: dict(QUALITY))

    def records(
        self,
        policies: Iterable[str] = tuple(QUALITY),
        *,
        retentions: Sequence[str] = RETENTIONS,
        suites: Sequence[str] = tuple(SUITES),
        seeds: int = 2,
        items: int = 12,
    ) -> list[Record]:
        """One for each cell and item; two calls give the same."""
        return [
            self._record(suite, policy, retention, seed=seed, item=item)
            for suite in suites
            for policy in policies
            for retention in ((None,) if policy in {"full", "floor"} else retentions)
            for seed in range(seeds)
            for item in range(items)
        ]

    def _record(
        self, suite: str, policy: str, retention: str | None, *, seed: int, item: int
    ) -> Record:
        score_name, count = SUITES[suite]
        name = f"{suite}-s{seed}-{item:02}"
        quality = self.quality.get(policy, 0.5) * (
            1 if retention is None else 0.5 + float(retention)
        )
        draw = random.Random(f"{name} {quality} {retention}")
        questions = tuple(self._question(draw, quality, f"{policy} says {n}") for n in range(count))
        share = float(retention or (policy == "full"))
        return Record(
            key=f"{name} {policy} {retention}",
            suite=suite,
            policy=policy,
            retention=retention,
            seed=seed,
            item=name,
            item_digest=f"digest of {name}",
            variant="single",
            score=sum(getattr(q, score_name) for q in questions) / count,
            score_name=score_name,
            metrics={
                metric: sum(getattr(q, metric) for q in questions) / count
                for metric in ("exact", "slot_accuracy", "nll", "agreement")
            },
            questions=questions,
            evidence_kept=sum(q.evidence_kept or 0 for q in questions) / count,
            realised_retention=share,
            kept=(int(1024 * share),),
            tokens=1024,
            cache_bytes=int(2**20 * share),
            mask_digest=("m",),
            seconds=Seconds(prefill=2.0, select=len(policy) / 1e3, decode=0.25),
        )

    def _question(self, draw: random.Random, quality: float, text: str) -> QuestionRecord:
        return QuestionRecord(
            exact=float(draw.random() < quality),
            slot_accuracy=min(1.0, max(0.0, quality + draw.gauss(0, 0.1))),
            nll=3.0 - 2.5 * quality + draw.gauss(0, 0.25),
            agreement=0.5,
            evidence_kept=min(1.0, quality),
            generated=text,
        )

    def evidence(self, records: Iterable[Record]) -> Evidence:
        return Evidence.of([Stored(record, self.header) for record in records], place="here")

    def knowing(self, *oracles: str) -> Lab:
        """The same policies, of which these know the true answers."""
        settings = {**self.header.settings, "oracles": list(oracles)}
        return replace(self, header=replace(self.header, settings=settings))

    def empty(self) -> Evidence:
        return Evidence(model="tiny", contract={}, records={})

    def claim(self, **changes: Any) -> Claim:
        """A claim that holds, and that is expected to."""
        claim = Claim(
            id="keydiff-better-than-random",
            kind=Kind.BETTER,
            policy="keydiff",
            baseline="random",
            suites=("needle", "qa"),
            retentions=RETENTIONS,
            metric="recovered",
            expect={"tiny": Verdict.SUPPORTED},
            source="Somebody 2025, arXiv 2500.00000",
            why="0: any difference",
            origin="somewhere/on/a/disk/suites/claims.toml",
        )
        return replace(claim, **changes)


class Page(HTMLParser):
    """What a page says, as a browser reads it.

    Attributes:
        tags: every element with its attributes.
        tables: rows of texts, by caption.
        scripts: contents of the script elements, by id.
        text: all that is not a script or a style.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._inside = ""
        self._caption = ""
        self._rows: list[list[str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag in {"script", "style"}:
            self._inside = f"{tag} {given.get('id', '')}"
        elif tag == "caption":
            self._inside, self._caption, self._rows = "caption", "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"} and self._rows:
            self._rows[-1].append("")
            self._inside = "cell"

    def handle_endtag(self, tag: str) -> None:
        if tag == "caption":
            self.tables[" ".join(self._caption.split())] = self._rows
        if tag in {"script", "style", "caption", "td", "th"}:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside.startswith("script"):
            name = self._inside.removeprefix("script ")
            self.scripts[name] = self.scripts.get(name, "") + data
        elif not self._inside.startswith("style"):
            self.text += data
        if self._inside == "caption":
            self._caption += data
        elif self._inside == "cell":
            self._rows[-1][-1] += data

    def rows(self, *words: str) -> dict[str, list[str]]:
        """The rows, by their first cell, of the one table whose caption has all these words."""
        (rows,) = [
            rows for caption, rows in self.tables.items() if all(word in caption for word in words)
        ]
        texts = [[" ".join(cell.split()) for cell in row] for row in rows if row]
        return {row[0]: row[1:] for row in texts}

    @property
    def data(self) -> Any:
        """What the page's script reads."""
        return json.loads(self.scripts["data"])


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="session")
def read() -> type[Page]:
    return Page
