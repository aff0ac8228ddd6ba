"""Items from real data: whole documents around questions that people asked about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

from kvharness.errors import DataProblem, UsageProblem
from kvharness.items.item import Item, Question, Span
from kvharness.items.real.files import read_records
from kvharness.items.real.layouts import Ask, Passage, Row, read_layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvharness.pretrained.prompt import Encoder

SUMMARIES = "summarization"
SUMMARY_REQUEST = "Write a one-page summary of the text above."
_GAP = "\n\n"
#: A text, and its index in the row unless it is a distractor.
_Document = tuple[str, int | None]
_PATIENCE = 64  # distractors in sequence that do not fit before a context counts as full


def load_items(  # noqa: PLR0913 - keywords, each a setting of the run
    source: str,
    *,
    suite: str,
    encoder: Encoder,
    context: int,
    seed: int,
    count: int,
    reserve: int = 0,
) -> list[Item]:
    """Draw ``count`` items of at most ``context`` tokens; different seeds share no row.

    Args:
        source: a .json, .jsonl or .parquet file, a folder of them, or a data set on the Hub as
            ``id``, ``id:config``, ``id:config:split`` or ``id::split``.
        suite: names the items; "summarization" adds no documents of other rows.
        encoder: of the model under test.
        context: most tokens of an item's context, template head included.
        seed: which ``count`` rows of the shuffled data: 0, 1, 2, ...
        count: items to draw.
        reserve: tokens of ``context`` to leave free.

    Raises:
        DataProblem: the data cannot be read, has no known layout, or too few rows fit.
        UsageProblem: ``seed`` or ``count`` is out of range.
    """
    if seed < 0 or count < 1:
        msg = f"real data needs a seed of 0 or more and a count of 1 or more; got {seed}, {count}"
        raise UsageProblem(msg)
    if not encoder.tokenizer.is_fast:
        msg = f"{source}: real data needs a model with a fast tokenizer, to find quotes in tokens"
        raise DataProblem(msg)
    draw = _Draw(
        source=source,
        rows=read_layout(read_records(source), source=source),
        suite=suite,
        encoder=encoder,
        context=context,
        reserve=reserve,
    )
    return [draw.item(row, seed, i) for i, row in enumerate(draw.chosen(seed, count))]


@dataclass(frozen=True, kw_only=True)
class _Draw:
    source: str
    rows: Sequence[Row]
    suite: str
    encoder: Encoder
    context: int
    reserve: int

    @cached_property
    def head(self) -> tuple[int, ...]:
        return self.encoder.head

    @property
    def room(self) -> int:
        return self.context - self.reserve - len(self.head)

    def size(self, text: str) -> int:
        return len(self.encoder.ids(text))

    def gold(self, row: Row) -> list[_Document]:
        """The documents that must be there, each with its index in the row."""
        summary = self.suite == SUMMARIES
        wanted = range(len(row.documents)) if summary else row.gold
        return [(row.documents[index], index) for index in wanted]

    def chosen(self, seed: int, count: int) -> list[Row]:
        """Rows ``seed * count`` to ``(seed + 1) * count`` of those that fit, shuffled once."""
        order = list(self.rows)
        Random(f"kvharness {self.suite}").shuffle(order)
        needed = (seed + 1) * count
        need = f"{count} items of seed {seed} need {needed}, for seeds share none"
        if len(order) < needed:
            msg = (
                f"{self.source}: {len(order)} contexts with questions; {need}. "
                f"Ask for fewer items or seeds, or give more data"
            )
            raise DataProblem(msg)
        fitting: list[Row] = []
        sizes: list[int] = []
        for row in order:
            sizes.append(self.size(_joined(self.gold(row))))
            if sizes[-1] <= self.room:
                fitting.append(row)
            if len(fitting) == needed:
                return fitting[-count:]
        shortest = sorted(sizes)[needed - 1] + self.context - self.room
        msg = (
            f"{self.source}: {len(fitting)} of {len(order)} contexts fit in {self.context} tokens "
            f"without being cut; {need}. Set --kv-context to at least {shortest}, or ask for "
            f"fewer items or seeds"
        )
        raise DataProblem(msg)

    def item(self, row: Row, seed: int, number: int) -> Item:
        placed = self._placed(row, Random(f"kvharness {self.suite} {seed} {number}"))
        text = _joined(placed)
        encoding = self.encoder.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True
        )
        find = _Finder(
            starts=_starts(placed), offsets=encoding["offset_mapping"], shift=len(self.head)
        )
        return Item(
            suite=self.suite,
            name=f"{self.suite}-s{seed}-{number:02d}",
            variant=row.layout,
            seed=seed,
            context=(*self.head, *encoding["input_ids"]),
            text=text,
            questions=tuple(self._question(row, ask, find) for ask in row.asks),
        )

    def _placed(self, row: Row, rng: Random) -> list[_Document]:
        gold = self.gold(row)
        others = self._distractors(row, rng) if self.suite != SUMMARIES else []
        while others:
            placed = [*gold, *others]
            rng.shuffle(placed)
            if self.size(_joined(placed)) <= self.room:
                return placed
            # Tokens merge across documents, so the sum of their sizes can be a little short.
            others.pop()
        return gold

    def _distractors(self, row: Row, rng: Random) -> list[_Document]:
        seen = {text for text, _ in self.gold(row)}
        free = self.room - self.size(_joined(self.gold(row)))
        chosen: list[_Document] = []
        misses = 0
        for text in self._candidates(row, rng):
            cost = self.size(_GAP + text)
            fits = cost <= free and text not in seen
            misses = 0 if fits else misses + 1
            if fits:
                chosen.append((text, None))
                seen.add(text)
                free -= cost
            if misses == _PATIENCE:
                break
        return chosen

    def _candidates(self, row: Row, rng: Random) -> Iterator[str]:
        """The row's own distractors, then the documents of all rows."""
        own = [text for index, text in enumerate(row.documents) if index not in row.gold]
        yield from rng.sample(own, len(own))
        for other in rng.sample(self.rows, len(self.rows)):
            yield from other.documents

    def _question(self, row: Row, ask: Ask, find: _Finder) -> Question:
        text = ask.text or (SUMMARY_REQUEST if self.suite == SUMMARIES else "")
        if not text:
            msg = f"{row.name}: asks nothing; such rows serve --kv-data {SUMMARIES}=... only"
            raise DataProblem(msg)
        # A base model's template ends in "Answer:", so its answer begins with a space as well.
        spaced = ask.prefix or not self.encoder.tokenizer.chat_template
        answer = self.encoder.ids(f"{' ' if spaced else ''}{ask.answers[0]}")
        return Question(
            text=text,
            question=self.encoder.question(text),
            tail=self.encoder.tail(ask.prefix),
            answer=answer,
            slots=((0, len(answer)),),
            reference=ask.answers[0],
            references=ask.answers,
            evidence=tuple(span for passage in ask.evidence if (span := find(passage))),
            max_new_tokens=128 if self.suite == SUMMARIES else 32,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finder:
    """Where the characters of a document are among the tokens of the context."""

    starts: dict[int, int]
    offsets: Sequence[tuple[int, int]]
    shift: int

    def __call__(self, passage: Passage) -> Span | None:
        document, first, last = passage
        start, end = (self.starts[document] + at for at in (first, last))
        inside = [i for i, (left, right) in enumerate(self.offsets) if left < end and right > start]
        return (inside[0] + self.shift, inside[-1] + 1 + self.shift) if inside else None


def _joined(placed: Sequence[_Document]) -> str:
    return _GAP.join(text for text, _ in placed)


def _starts(placed: Sequence[_Document]) -> dict[int, int]:
    """The first character of each document of the row, by its index in the row."""
    starts, at = {}, 0
    for text, index in placed:
        if index is not None:
            starts[index] = at
        at += len(text) + len(_GAP)
    return starts
