"""The layouts of real data that are understood, and what all of them become."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvharness.errors import DataProblem

Record = Mapping[str, Any]
#: A passage of one document: its index in the row, and characters from and to (half-open).
Passage = tuple[int, int, int]
_Named = tuple[str, Record]

MOST_QUESTIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question as text, empty for "summarise this"; the first answer is scored by token."""

    text: str
    answers: tuple[str, ...]
    evidence: tuple[Passage, ...] = ()
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Documents with the questions about them.

    Attributes:
        name: file and line, for messages.
        layout: where the row came from; the variant of its item.
        documents: texts that are never cut.
        gold: indices of the documents that a question may need; the others only distract.
        asks: at least one.
    """

    name: str
    layout: str
    documents: tuple[str, ...]
    gold: tuple[int, ...]
    asks: tuple[Ask, ...]


_Reader = Callable[[Iterable[_Named]], list[Row]]


def read_layout(records: Sequence[_Named], *, source: str) -> list[Row]:
    """Read named records in the first layout that their columns fit.

    Rows that cannot be answered from their documents are left out: SQuAD's unanswerable
    questions, and HotpotQA rows without all supporting sentences.

    Raises:
        DataProblem: no layout fits, or a row breaks its layout.
    """
    _expect_unicode(records)
    columns = {key for _, record in records for key in record}
    for needed, read in _LAYOUTS.values():
        if columns.issuperset(needed):
            return read(records)
    expected = "; ".join(f"{name} ({', '.join(needed)})" for name, (needed, _) in _LAYOUTS.items())
    found = ", ".join(sorted(columns)) or "none"
    msg = (
        f"{source}: the columns are {found}; expected those of one layout: {expected}. "
        f"Rename the columns, or convert the rows to the first layout"
    )
    raise DataProblem(msg)


def _expect_unicode(records: Iterable[_Named]) -> None:
    """Refuse halves of surrogate pairs, which JSON can write and no tokenizer reads."""
    for name, record in records:
        try:
            json.dumps(record, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start].encode("unicode_escape").decode()
            raise DataProblem(
                f"{name}: {half} is half of a surrogate pair, expected Unicode text; replace it"
            ) from None


def _own_row(name: str, record: Record) -> Row:
    context = record.get("context")
    documents = _texts([context] if isinstance(context, str) else context, "context", name)
    questions = record.get("questions")
    if not isinstance(questions, list) or not questions:
        raise _problem(name, "questions", questions, "a list of at least one question")
    asks = tuple(
        _own_ask(documents, question, f"{name}, question {number}", whole=isinstance(context, str))
        for number, question in enumerate(questions, 1)
    )
    gold = {document for ask in asks for document, _, _ in ask.evidence}
    if not all(ask.evidence for ask in asks):
        gold = set(range(len(documents)))
    return Row(name=name, layout="jsonl", documents=documents, gold=tuple(sorted(gold)), asks=asks)


def _own_ask(documents: Sequence[str], question: Any, where: str, *, whole: bool) -> Ask:
    if not isinstance(question, Mapping):
        raise _problem(where, "question", question, "an object with question and answers")
    evidence = question.get("evidence") or []
    if not isinstance(evidence, list):
        raise _problem(where, "evidence", evidence, "a list of quotes or of [start, end]")
    prefix = question.get("answer_prefix") or ""
    if not isinstance(prefix, str):
        raise _problem(where, "answer_prefix", prefix, "text")
    return Ask(
        text=_text(question, "question", where),
        answers=_distinct(_texts(question.get("answers"), "answers", where)),
        evidence=tuple(_passage(documents, given, where, whole=whole) for given in evidence),
        prefix=prefix.rstrip(),
    )


def _passage(documents: Sequence[str], given: Any, where: str, *, whole: bool) -> Passage:
    """Find a quote in the first document that has it, or check offsets into the only one."""
    if isinstance(given, str) and given.strip():
        return _quoted(documents, given, where, key="evidence")
    match given:
        case [int(start), int(end)] if whole and 0 <= start < end <= len(documents[0]):
            if documents[0][start:end].strip():
                return (0, start, end)
    expected = "a quote from the context"
    if whole:
        expected += f", or [start, end] within its {len(documents[0])} characters"
    raise _problem(where, "evidence", given, expected)


def _quoted(documents: Sequence[str], quote: str, where: str, *, key: str) -> Passage:
    for document, text in enumerate(documents):
        start = text.find(quote)
        if start >= 0:
            return (document, start, start + len(quote))
    raise _problem(where, key, quote, "a quote that is in the context, letter by letter")


def _squad(records: Iterable[_Named]) -> list[Row]:
    groups: dict[str, list[_Named]] = {}
    for name, record in records:
        groups.setdefault(_text(record, "context", name), []).append((name, record))
    rows = (_squad_row(context, group) for context, group in groups.items())
    return [row for row in rows if row.asks]


def _squad_row(context: str, group: Sequence[_Named]) -> Row:
    asks = [ask for name, record in group if (ask := _squad_ask(context, record, name))]
    first, documents = group[0][0], (context,)
    return Row(
        name=first,
        layout="squad",
        documents=documents,
        gold=(0,),
        asks=tuple(asks[:MOST_QUESTIONS]),
    )


def _squad_ask(context: str, record: Record, name: str) -> Ask | None:
    pairs = [
        (text, start)
        for text, start in _pairs(record, "answers", ("text", "answer_start"), name)
        if isinstance(text, str) and text.strip()
    ]
    if not pairs:
        return None
    first, start = pairs[0]
    if not isinstance(start, int) or start < 0 or not context.startswith(first, start):
        _, start, _ = _quoted([context], first, name, key="answers")
    return Ask(
        text=_text(record, "question", name),
        answers=_distinct([text for text, _ in pairs]),
        evidence=((0, start, start + len(first)),),
    )


def _hotpot_row(name: str, record: Record) -> Row | None:
    paragraphs = {
        str(title): _paragraph(str(title), _texts(sentences, "context", name, blank=True))
        for title, sentences in _pairs(record, "context", ("title", "sentences"), name)
    }
    places = {title: place for place, title in enumerate(paragraphs)}
    evidence = []
    for title, sentence in _pairs(record, "supporting_facts", ("title", "sent_id"), name):
        _, spans = paragraphs.get(str(title), ("", ()))
        if not isinstance(sentence, int) or not 0 <= sentence < len(spans):
            return None
        evidence.append((places[str(title)], *spans[sentence]))
    if not evidence:
        return None
    answers = _distinct([_text(record, "answer", name)])
    ask = Ask(text=_text(record, "question", name), answers=answers, evidence=tuple(evidence))
    return Row(
        name=name,
        layout="hotpotqa",
        documents=tuple(text for text, _ in paragraphs.values()),
        gold=tuple(sorted({document for document, _, _ in evidence})),
        asks=(ask,),
    )


def _paragraph(title: str, sentences: Iterable[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The paragraph's text, and where each of its sentences stands in it."""
    text, spans = f"{title}:", []
    for sentence in sentences:
        bare = sentence.strip()
        spans.append((len(text) + 1, len(text) + 1 + len(bare)))
        text = f"{text} {bare}"
    return text, tuple(spans)


def _longbench_row(name: str, record: Record) -> Row:
    asked = record.get("input") or ""
    if not isinstance(asked, str):
        raise _problem(name, "input", asked, "text; empty where the task is a summary")
    answers = _distinct(_texts(record.get("answers"), "answers", name))
    return Row(
        name=name,
        layout=str(record.get("dataset") or "longbench"),
        documents=(_text(record, "context", name),),
        gold=(0,),
        asks=(Ask(text=asked.strip(), answers=answers),),
    )


def _each(read: Callable[[str, Record], Row | None]) -> _Reader:
    return lambda records: [row for name, record in records if (row := read(name, record))]


_LAYOUTS: dict[str, tuple[tuple[str, ...], _Reader]] = {
    "kvharness": (("context", "questions"), _each(_own_row)),
    "HotpotQA": (("question", "answer", "context", "supporting_facts"), _each(_hotpot_row)),
    "SQuAD": (("context", "question", "answers"), _squad),
    "LongBench": (("input", "context", "answers"), _each(_longbench_row)),
}


def _text(record: Record, key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _problem(where, key, value, "text")
    return value


def _texts(value: Any, key: str, where: str, *, blank: bool = False) -> tuple[str, ...]:
    if isinstance(value, list) and (value or blank):
        texts = tuple(text for text in value if isinstance(text, str) and (blank or text.strip()))
        if len(texts) == len(value):
            return texts
    raise _problem(where, key, value, "a list of at least one text")


def _pairs(record: Record, key: str, names: tuple[str, str], where: str) -> list[tuple[Any, Any]]:
    """Pairs from an object of two lists (as on the Hub) or a list of pairs (as first published)."""
    value = record.get(key)
    if isinstance(value, Mapping):
        left, right = (value.get(name) for name in names)
        if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
            return list(zip(left, right, strict=True))
    elif isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value):
        return [(left, right) for left, right in value]
    raise _problem(
        where, key, value, f"an object of two equally long lists, {names[0]} and {names[1]}"
    )


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.strip() for text in texts))


def _problem(where: str, key: str, value: Any, expected: str) -> DataProblem:
    given = repr(value)
    shown = given if len(given) <= 80 else f"{given[:77]}..."
    return DataProblem(
        f"{where}: {key!r} is {shown}; expected {expected}. Correct or remove the row"
    )
