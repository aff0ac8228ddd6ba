"""Windows of training text: a context and the tokens that really follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.errors import DataProblem, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kvharness.items.item import Item
    from kvharness.pretrained.prompt import Encoder
    from kvharness.training.corpus import Corpus

#: Neighbouring windows of a book know each other, so they are held out together.
PASSAGE = 4
_HOLD_OUT_EVERY = 8
#: No two texts share so many tokens in a row unless one quotes the other.
_RUN = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One stretch of a document.

    Attributes:
        passage: of which document, and which part of it: the unit of held-out statistics.
        tokens: ids of the template's head, the rest of the context, and its continuation.
        head: how many of them are the template's.
        context: how many of them are context, the head included.
        held_out: never trained on.
    """

    passage: str
    tokens: tuple[int, ...]
    head: int
    context: int
    held_out: bool


def cut(corpus: Corpus, encoder: Encoder, *, context: int, ahead: int) -> list[Window]:
    """Every full window of a corpus, without overlap; each eighth passage is held out.

    Args:
        corpus: what to read.
        encoder: of the model that will read it.
        context: tokens before the continuation, template head included, as in the suites.
        ahead: tokens of the continuation.

    Raises:
        DataProblem: there is too little text to train on one passage and hold out another.
    """
    head = encoder.head
    passages = list(_passages(corpus, encoder, context + ahead - len(head)))
    windows = [
        Window(
            passage=name,
            tokens=head + body,
            head=len(head),
            context=context,
            held_out=number % _HOLD_OUT_EVERY == _HOLD_OUT_EVERY - 1,
        )
        for number, (name, bodies) in enumerate(passages)
        for body in bodies
    ]
    if not any(window.held_out for window in windows):
        least = _HOLD_OUT_EVERY * PASSAGE * (context + ahead)
        raise DataProblem(
            f"the training text makes {len(windows)} windows of {context + ahead} tokens; expected "
            f"at least about {least} tokens, so that an eighth can be held out. Add text"
        )
    return windows


def _passages(
    corpus: Corpus, encoder: Encoder, length: int
) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    for document in corpus.documents:
        ids: list[int] = []
        # By paragraph: tokenizers are slow on whole books, and warn about their length.
        for paragraph in document.text.split("\n\n"):
            ids += encoder.ids(f"{paragraph}\n\n")
        starts = range(0, len(ids) - length + 1, length)
        bodies = [tuple(ids[start : start + length]) for start in starts]
        for first in range(0, len(bodies), PASSAGE):
            yield f"{document.name}#{first // PASSAGE}", bodies[first : first + PASSAGE]


def check_disjoint(windows: Iterable[Window], items: Iterable[Item]) -> None:
    """Refuse training text that evaluation items hold as well.

    Raises:
        UsageProblem: some window and some item share 24 tokens in a row.
    """
    evaluated = {run: item.name for item in items for run in _runs(item.context)}
    for window in windows:
        body = window.tokens[window.head :]
        shared = next((run for run in _runs(body) if run in evaluated), None)
        if shared is not None:
            raise UsageProblem(
                f"the training text {window.passage} shares {_RUN} tokens in a row with the "
                f"evaluation item {evaluated[shared]}; what is trained on it cannot be judged by "
                f"the suites. Leave that text out"
            )


def _runs(tokens: Sequence[int]) -> Iterator[int]:
    # Hashes: 64 bits each instead of 24 tokens.
    return (hash(tuple(tokens[start : start + _RUN])) for start in range(len(tokens) - _RUN + 1))
