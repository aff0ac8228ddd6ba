"""Metrics on generated text; all in 0..1 and, but for the decoy rate, higher is better."""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kvharness.items.item import Question

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def squad_normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces: as SQuAD's own script."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def token_f1(answer: str, references: Iterable[str]) -> float:
    """SQuAD's F1 over the words that answer and reference share; the best reference counts."""
    words = squad_normalise(answer).split()
    return max((_f1(words, squad_normalise(text).split()) for text in references), default=0.0)


def _f1(words: Sequence[str], gold: Sequence[str]) -> float:
    if not words or not gold:
        return float(words == gold)
    shared = (Counter(words) & Counter(gold)).total()
    return 2 * shared / (len(words) + len(gold))


def exact_match(answer: str, references: Iterable[str]) -> float:
    """1 if the normalised answer is one of the normalised references."""
    return float(squad_normalise(answer) in {squad_normalise(text) for text in references})


def contains(answer: str, references: Iterable[str]) -> float:
    """1 if some reference stands in the answer between word borders, both normalised.

    "12" is not in "3125". A reference that is empty once normalised is only in an empty answer.
    """
    normalised = squad_normalise(answer)
    return float(any(_within(squad_normalise(text), normalised) for text in references))


def _within(part: str, whole: str) -> bool:
    return part == whole or f" {part} " in f" {whole} "


def fact_recall(answer: str, facts: Sequence[str]) -> float:
    """The share of the facts that the answer contains.

    Raises:
        ValueError: no facts; a share of nothing would look like a result.
    """
    if not facts:
        raise ValueError("a share needs at least one value to look for")
    return sum(contains(answer, [fact]) for fact in facts) / len(facts)


def decoy_rate(answer: str, decoys: Sequence[str]) -> float:
    """The share of the decoys that the answer contains: lower is better."""
    return fact_recall(answer, decoys)


def rouge_l(answer: str, references: Iterable[str]) -> float:
    """The stemmed ROUGE-L F of rouge-score; the best reference counts."""
    scorer = _rouge_scorer()
    scores = (float(scorer.score(text, answer)["rougeL"].fmeasure) for text in references)
    return max(scores, default=0.0)


@cache
def _rouge_scorer() -> Any:
    # It pulls in nltk, which runs without generated text never need.
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415

    return RougeScorer(["rougeL"], use_stemmer=True)


def text_metrics(answer: str, question: Question) -> dict[str, float]:
    """Every metric that applies to a generated answer, by name."""
    metrics = {
        "f1": token_f1(answer, question.references),
        "contains": contains(answer, question.references),
        "rouge_l": rouge_l(answer, question.references),
    }
    if question.facts:
        metrics["fact_recall"] = fact_recall(answer, question.facts)
    if question.decoys:
        metrics["decoy_rate"] = decoy_rate(answer, question.decoys)
    return metrics
