"""Language modelling: the last quarter of a running text after its first three quarters.

The metric of the SIP paper (Steele 2026, arXiv 2601.14279), at exact budgets: its 48-token floor
made "10 %" of short texts 12.5 to 50 %. A generated text comes back to a cast of its own, so that
its first three quarters help with the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.items.compose import Document, TooShort
from kvharness.items.filler import grammar, read_sentences
from kvharness.items.item import Item, Question

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from kvharness.items.drawing import Drawing
    from kvharness.pretrained.prompt import Encoder

#: Of a text's own grammar.
_FRAMES, _WORDS = 80, 3
_PARAGRAPH = 6
_LEAST = 64


def language_modelling_items(drawing: Drawing) -> list[Item]:
    """Texts whose first three quarters are the context; ``haystack`` gives real ones."""
    return drawing.each(lambda number: _item(drawing, number))


def _item(drawing: Drawing, number: int) -> Item:
    encoder, haystack = drawing.encoder, drawing.haystack
    head, rng = encoder.head, drawing.rng("language-modelling", number)
    room, ahead = drawing.context - len(head), drawing.context // 3
    if room < _LEAST:
        raise TooShort(drawing.context, least=len(head) + _LEAST)
    ids = _text(encoder, _sentences(rng, haystack), room + ahead)
    tail, answer = ids[room : room + 1], ids[room + 1 :]
    return drawing.item(
        "language-modelling",
        number,
        variant="generated" if haystack is None else haystack.name,
        document=Document(ids=(*head, *ids[:room]), text=encoder.text(ids[:room]), spans=()),
        questions=[_question(encoder, tail, answer)],
    )


def _question(encoder: Encoder, tail: tuple[int, ...], answer: tuple[int, ...]) -> Question:
    """Nothing is asked: the text goes on."""
    text = encoder.text(answer)
    return Question(
        text="(the text goes on)",
        question=(),
        tail=tail,
        answer=answer,
        slots=((0, len(answer)),),
        reference=text,
        references=(text,),
        max_new_tokens=1,
    )


def _sentences(rng: random.Random, haystack: Path | None) -> Iterator[str]:
    if haystack is None:
        own = grammar().narrowed(rng, frames=_FRAMES, words=_WORDS)
        while True:
            yield own.sentence(rng)
    sentences = read_sentences(haystack)
    start = rng.randrange(len(sentences))
    while True:
        yield sentences[start % len(sentences)]
        start += 1


def _text(encoder: Encoder, sentences: Iterator[str], length: int) -> tuple[int, ...]:
    ids: list[int] = []
    for number, sentence in enumerate(sentences):
        separator = "\n\n" if number % _PARAGRAPH == 0 else " "
        ids += encoder.ids(sentence if not ids else separator + sentence)
        if len(ids) >= length:
            return tuple(ids[:length])
    raise AssertionError("sentences never end")
