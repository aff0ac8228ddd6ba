"""What became of a group: records, failures, and what was computed or reused."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvharness.items.novelty import Novelty

if TYPE_CHECKING:
    from kvharness.cell import Cell
    from kvharness.record import Record


@dataclass(slots=True, kw_only=True)
class GroupOutcome:
    """What became of a group's cells; ``records`` holds one list for each cell name.

    ``refused`` says why nothing could be run at all; ``untrained`` why cells of policies that
    nobody named were not; ``novelty`` is that of generated contexts.
    """

    items: int = 0
    refused: str = ""
    records: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, str] = field(default_factory=dict)
    untrained: dict[str, str] = field(default_factory=dict)
    reused: int = 0
    computed: int = 0
    novelty: Novelty = field(default_factory=Novelty)

    def failure(self, cell: Cell) -> str:
        """Why a cell has no result; empty where it has one."""
        return self.refused or self.failures.get(cell.name, "")
