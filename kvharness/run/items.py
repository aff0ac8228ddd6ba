"""The items of a group: drawn by its suite, or read from the data given in its place."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from kvharness.items.drawing import Drawing
from kvharness.items.suites import SUITES
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kvharness.cell import Group
    from kvharness.items.item import Item
    from kvharness.pretrained.find import ModelSource
    from kvharness.run.settings import Settings

#: The longest generated question and answer take 68 tokens of SmolLM2.
_FAR = 1024


class Supply:
    """Draws items that fit a model's window.

    Args:
        settings: of the run.
        source: of the model.
    """

    def __init__(self, settings: Settings, source: ModelSource) -> None:
        self._settings = settings
        self._source = source
        self._ahead: dict[Group, list[Item]] = {}

    @cached_property
    def encoder(self) -> Encoder:
        """The tokenizer alone: a rerun that reuses everything never loads weights."""
        return Encoder(self._source.tokenizer())

    def is_generated(self, suite: str) -> bool:
        """Whether a suite makes its own items, which no ``--kv-data`` replaces."""
        return suite not in dict(self._settings.data)

    def items(self, group: Group) -> list[Item]:
        """All items of a group.

        Raises:
            KvharnessError: data that cannot be read, a context too short for the suite, or one
                that leaves no room for questions and answers in the model's window.
        """
        items = self._ahead.pop(group, None) or self._draw(group)
        self._check_window(items)
        return items

    def check(self, groups: Iterable[Group]) -> None:
        """Find before anything is computed that questions do not fit the window.

        Draws the first group of each suite, and only where the window is near. Other problems
        are left to the group: they are not known of all cells.

        Raises:
            UsageProblem: they do not fit.
        """
        window = self._source.window()
        if window is None or window - self._settings.contract.context > _FAR:
            return
        first = {group.suite: group for group in sorted(groups, key=lambda each: -each.seed)}
        for group in first.values():
            if self.is_generated(group.suite) and group not in self._ahead:
                with suppress(Exception):
                    self._ahead[group] = self._draw(group)
                self._check_window(self._ahead.get(group, ()))

    def _draw(self, group: Group) -> list[Item]:
        settings = self._settings
        if not self.is_generated(group.suite):
            return self._read(group)
        drawing = Drawing(
            encoder=self.encoder,
            context=settings.contract.context,
            seed=group.seed,
            count=settings.items,
            haystack=settings.haystack,
        )
        return SUITES[group.suite].draw(drawing)

    def _read(self, group: Group) -> list[Item]:
        from kvharness.items.real.draw import load_items  # noqa: PLC0415 - datasets is slow

        return load_items(
            dict(self._settings.data)[group.suite],
            suite=group.suite,
            encoder=self.encoder,
            context=self._settings.contract.context,
            seed=group.seed,
            count=self._settings.items,
        )

    def _check_window(self, items: Sequence[Item]) -> None:
        from kvharness.model.loaded import check_window  # noqa: PLC0415 - torch

        if items:
            context = self._settings.contract.context
            check_window(self._source, context, beside=longest(items) - context)


def longest(items: Sequence[Item]) -> int:
    """Tokens of the longest context with its question and its answer."""
    return max(
        len(item.context) + len(q.question) + len(q.tail) + max(len(q.answer), q.max_new_tokens)
        for item in items
        for q in item.questions
    )
