"""What every policy made of every item, as compact data for the page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvharness.records.record import QuestionRecord, Record
    from kvharness.report.survey import Survey

_PLACES = 4


class _Texts:
    """Each text once: most policies give one of a few answers to an item."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, text: str | None) -> int:
        """The text's place in the list; -1 for none."""
        return -1 if text is None else self.numbers.setdefault(text, len(self.numbers))


def explorer(survey: Survey) -> dict[str, Any]:
    """Builtins only.

    Items are ``[seed, item, variant, tokens]``. Rows are ``[item, policy, retention, score,
    evidence kept, realised retention, questions]``, where the first three are numbers in the
    lists beside them (-1: no retention) and questions are ``[exact, slot accuracy, nll, evidence
    kept, text]``.
    """
    texts = _Texts()
    suites = [_suite(survey, suite, texts) for suite in survey.suites]
    return {
        "policies": list(survey.policies),
        "labels": {p: survey.label(p) for p in survey.policies if survey.label(p) != p},
        "retentions": list(survey.retentions),
        "suites": suites,
        "texts": list(texts.numbers),
    }


def script_text(data: dict[str, Any]) -> str:
    """JSON that can stand inside a script element: nothing in it can close the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _suite(survey: Survey, suite: str, texts: _Texts) -> dict[str, Any]:
    records = [record for record in survey.all_records() if record.suite == suite]
    found = {(r.seed, r.item): [r.seed, r.item, r.variant, r.tokens] for r in records}
    items = {name: number for number, name in enumerate(sorted(found))}
    rows = [[items[record.seed, record.item], *_row(survey, record, texts)] for record in records]
    return {
        "name": suite,
        "score": survey.score_name(suite),
        "items": [found[name] for name in items],
        "rows": rows,
    }


def _row(survey: Survey, record: Record, texts: _Texts) -> list[Any]:
    text = record.retention
    return [
        survey.policies.index(record.policy),
        -1 if text is None else survey.retentions.index(text),
        _short(record.score),
        _short(record.evidence_kept),
        _short(record.realised_retention),
        [_question(question, texts) for question in record.questions],
    ]


def _question(question: QuestionRecord, texts: _Texts) -> list[Any]:
    return [
        _short(question.exact),
        _short(question.slot_accuracy),
        _short(question.nll),
        _short(question.evidence_kept),
        texts.number(question.generated),
    ]


def _short(number: float | None) -> float | int | None:
    """Rounded, and whole numbers without a point."""
    if number is None:
        return None
    rounded = round(number, _PLACES)
    return int(rounded) if rounded == int(rounded) else rounded
