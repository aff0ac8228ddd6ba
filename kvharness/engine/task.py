"""What the engine is asked for, and what it says where it cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from kvharness.isolation.last_words import BlackBox

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kvharness.cell import Cell
    from kvharness.contract import Contract
    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.model.loaded import Runtime


class Generate(StrEnum):
    """For which questions of an item text is generated."""

    FIRST = "first"
    ALL = "all"
    NONE = "none"

    def replies(self, questions: int) -> int:
        """How many of so many questions get generated text."""
        return {Generate.FIRST: 1, Generate.ALL: questions, Generate.NONE: 0}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One cell to run on one item, with the key its record gets."""

    cell: Cell
    policy: LoadedPolicy
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A cell that could not be run on an item, and why."""

    cell: Cell
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a group is run with.

    ``score_name`` is the suite's headline metric; ``keep_mask`` is given each mask with its
    digest; ``box`` says which policy runs.
    """

    runtime: Runtime
    contract: Contract
    generate: Generate
    score_name: str
    keep_mask: Callable[[str, Tensor], None] | None = None
    box: BlackBox = field(default_factory=BlackBox)
