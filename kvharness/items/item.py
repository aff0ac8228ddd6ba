"""Items: one context with its questions, in tokens of one model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about a context, and the reply that is scored.

    The model reads ``question`` and ``tail`` and is expected to go on with ``answer``. All ids
    are of the item's model; spans are half-open.

    Attributes:
        text: the question, to read.
        question: token ids of the question as it stands after the context.
        tail: token ids between the question and the answer: end of turn, header of the reply,
            answer prefix. Never empty.
        answer: token ids of the reference answer.
        slots: spans of ``answer`` that hold the facts; the whole answer if it is one fact.
        reference: the reference answer, to read.
        references: every text that counts as right on generated text.
        facts: values that generated text should contain, one for each slot.
        decoys: values that generated text should not contain.
        evidence: spans of the context that answer this question; empty if unknown.
        max_new_tokens: longest generated answer.
    """

    text: str
    question: tuple[int, ...]
    tail: tuple[int, ...]
    answer: tuple[int, ...]
    slots: tuple[Span, ...]
    reference: str
    references: tuple[str, ...]
    facts: tuple[str, ...] = ()
    decoys: tuple[str, ...] = ()
    evidence: tuple[Span, ...] = ()
    max_new_tokens: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One context with its questions: the unit of every statistic.

    Attributes:
        suite: name of the suite.
        name: unique in the suite and readable, such as ``needle-s1-03``.
        variant: kind of item within the suite.
        seed: the seed that drew it.
        context: token ids, template head included; its length is the contract's context.
        text: the context, to read.
        questions: at least one.
    """

    suite: str
    name: str
    variant: str
    seed: int
    context: tuple[int, ...]
    text: str
    questions: tuple[Question, ...]

    @property
    def evidence(self) -> tuple[Span, ...]:
        """The spans that some question needs, each once."""
        return tuple(sorted({span for q in self.questions for span in q.evidence}))

    @property
    def digest(self) -> str:
        """16 hex digits over everything that the model reads or is scored on."""
        content = [
            self.context,
            [
                (q.question, q.tail, q.answer, q.slots, q.references, q.facts, q.decoys)
                for q in self.questions
            ],
            [q.max_new_tokens for q in self.questions],
            self.evidence,
        ]
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def identity(self) -> dict[str, object]:
        """What of an item decides what its records say: more than `digest`, which names content.

        A record repeats the name and the variant, and counts what was kept of the evidence of each
        question. The digest stays as it is: it also fixes what policies draw.
        """
        return {
            "digest": self.digest,
            "name": self.name,
            "variant": self.variant,
            "evidence": [question.evidence for question in self.questions],
        }
