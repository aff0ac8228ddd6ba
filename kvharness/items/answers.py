"""Reference answers as token ids, with the spans of their facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.items.item import Span
    from kvharness.pretrained.prompt import Encoder


def answer_slots(
    encoder: Encoder, values: Sequence[str], between: Sequence[str]
) -> tuple[tuple[int, ...], tuple[Span, ...]]:
    """An answer that follows an answer prefix: ``value between value ...`` after a space.

    Args:
        encoder: the model's.
        values: the facts, in order; each becomes a slot.
        between: what stands before the second and later values, space included; an entry more
            than that closes the answer.
    """
    ids: list[int] = []
    slots: list[Span] = []
    for number, value in enumerate(values):
        lead = between[number - 1] if number else " "
        # The space before a word belongs to the word's token in most vocabularies.
        before = encoder.ids(lead.rstrip(" ")) if lead.strip() else ()
        ids += before
        start = len(ids)
        ids += encoder.ids(f" {value}" if lead.endswith(" ") else value)
        slots.append((start, len(ids)))
    if len(between) >= max(1, len(values)):
        ids += encoder.ids(between[-1])
    return tuple(ids), tuple(slots)
