"""The items of a group: drawn by its suite, or read from the data given in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.suite import SUITES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.cell import Group
    from kvharness.item import Item
    from kvharness.prompt import Encoder
    from kvharness.settings import Settings


def is_generated(suite: str, settings: Settings) -> bool:
    """Whether a suite makes its own items, which no ``--kv-data`` replaces."""
    return suite not in dict(settings.data)


def items_of(group: Group, settings: Settings, encoder: Encoder) -> list[Item]:
    """All items of a group.

    Raises:
        KvharnessError: data that cannot be read, or a context too short for the suite.
    """
    if not is_generated(group.suite, settings):
        return _real_items(group, settings, encoder)
    return SUITES[group.suite].draw(
        encoder,
        context=settings.contract.context,
        seed=group.seed,
        count=settings.items,
        haystack=settings.haystack,
    )


def _real_items(group: Group, settings: Settings, encoder: Encoder) -> list[Item]:
    from kvharness.real_data import load_items  # noqa: PLC0415 - datasets is slow

    return load_items(
        dict(settings.data)[group.suite],
        suite=group.suite,
        encoder=encoder,
        context=settings.contract.context,
        seed=group.seed,
        count=settings.items,
    )


def longest(items: Sequence[Item]) -> int:
    """Tokens of the longest context with its question and its answer."""
    return max(
        len(item.context) + len(q.question) + len(q.tail) + max(len(q.answer), q.max_new_tokens)
        for item in items
        for q in item.questions
    )
