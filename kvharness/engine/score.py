"""From answers to the numbers of a record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from statistics import fmean
from typing import TYPE_CHECKING

from kvharness.items.text_metrics import text_metrics
from kvharness.records.record import Held, QuestionRecord, Record, Seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from kvharness.cell import Cell
    from kvharness.engine.answer import Answers
    from kvharness.items.item import Item, Question, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What one cell did in one pass over a context: the parts of a record."""

    questions: tuple[QuestionRecord, ...]
    evidence_kept: float | None
    kept: tuple[int, ...]
    tokens: int
    realised_retention: float
    cache_bytes: int
    mask_digest: str
    seconds: Seconds
    held: Held | None = None


def score_question(
    question: Question,
    index: int,
    answers: Answers,
    full: Answers,
    decode: Callable[[tuple[int, ...]], str],
) -> QuestionRecord:
    """Compare one question's answers with the reference and with the full cache's."""
    greedy = answers.greedy[index].tolist()
    hits = [mine == due for mine, due in zip(greedy, question.answer, strict=True)]
    inside = [hit for start, end in question.slots for hit in hits[start:end]]
    same = [
        mine == theirs for mine, theirs in zip(greedy, full.greedy[index].tolist(), strict=True)
    ]
    generated = answers.generated[index]
    text = None if generated is None else decode(tuple(generated)).strip()
    return QuestionRecord(
        exact=fmean(all(hits[start:end]) for start, end in question.slots),
        slot_accuracy=fmean(inside),
        nll=-float(answers.logprob[index].mean()),
        agreement=fmean(same),
        generated=text,
        text_metrics={} if text is None else text_metrics(text, question),
    )


def evidence_share(mask: Tensor, spans: Sequence[Span]) -> float | None:
    """Share of the spans' entries that a keep mask ``[layers, K, n]`` keeps; None without spans."""
    tokens = sorted({token for start, end in spans for token in range(start, end)})
    return float(mask[..., tokens].float().mean()) if tokens else None


def merge_record(
    cell: Cell, key: str, item: Item, parts: Sequence[Scored], *, score_name: str
) -> Record:
    """One record from the passes of an item: one pass, or one for each question that was seen."""
    questions = tuple(question for part in parts for question in part.questions)
    metrics = mean_metrics(questions)
    return Record(
        key=key,
        suite=cell.suite,
        policy=cell.policy,
        retention=cell.retention_text,
        seed=cell.seed,
        item=item.name,
        item_digest=item.digest,
        variant=item.variant,
        score=metrics[score_name],
        score_name=score_name,
        metrics=metrics,
        questions=questions,
        evidence_kept=_mean(part.evidence_kept for part in parts),
        realised_retention=fmean(part.realised_retention for part in parts),
        kept=tuple(round(fmean(counts)) for counts in zip(*(p.kept for p in parts), strict=True)),
        tokens=round(fmean(part.tokens for part in parts)),
        cache_bytes=round(fmean(part.cache_bytes for part in parts)),
        mask_digest=tuple(part.mask_digest for part in parts),
        held=_held(part.held for part in parts),
        seconds=Seconds(
            prefill=sum(part.seconds.prefill for part in parts),
            select=sum(part.seconds.select for part in parts),
            decode=sum(part.seconds.decode for part in parts),
        ),
    )


def mean_metrics(questions: Sequence[QuestionRecord]) -> dict[str, float]:
    """Mean of every number over the questions that have it."""
    columns: dict[str, list[float]] = {}
    for question in questions:
        numbers = {
            "exact": question.exact,
            "slot_accuracy": question.slot_accuracy,
            "nll": question.nll,
            "agreement": question.agreement,
            **question.text_metrics,
        }
        for name, number in numbers.items():
            columns.setdefault(name, []).append(number)
    return {name: fmean(column) for name, column in columns.items()}


def _held(parts: Iterable[Held | None]) -> Held | None:
    known = [part for part in parts if part is not None]
    return reduce(Held.beside, known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
