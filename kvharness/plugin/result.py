"""What one cell did on all its items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.contract import Anchor, EvictMode, QuestionMode

if TYPE_CHECKING:
    from kvharness.cell import Cell
    from kvharness.contract import Contract
    from kvharness.records.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """The records of one cell, one for each item.

    Attributes:
        cell: what was run.
        contract: under which contract.
        records: in the order of the items.
        expected: how many items there are.
    """

    cell: Cell
    contract: Contract
    records: tuple[Record, ...]
    expected: int

    def check(self) -> None:
        """Assert that every item has its record and that every budget was met exactly."""
        found = len(self.records)
        assert found == self.expected, f"{found} of {self.expected} items have a record"  # noqa: S101
        for record in self.records:
            self._check_budget(record)
            self._check_held(record)

    def _check_budget(self, record: Record) -> None:
        if self.contract.question is QuestionMode.PROMPT and self.cell.policy == Anchor.FLOOR:
            # It keeps what comes after the context, which each question has more or less of.
            return
        due = self.cell.budget(record.tokens, self.contract) / record.tokens
        # Several passes (a question each) differ in length: their mean may miss by one entry.
        slack = 1e-9 if len(record.mask_digest) == 1 else 1 / record.tokens
        kept = record.realised_retention
        assert abs(kept - due) <= slack, (  # noqa: S101
            f"{record.item}: kept {kept:.6f} of the cache, expected {due:.6f}"
        )

    def _check_held(self, record: Record) -> None:
        """At a constant budget every head holds it after every step of decoding."""
        if self.contract.evict is not EvictMode.DECODE or self.cell.policy == Anchor.FULL:
            return
        held = record.held
        assert held is not None, f"{record.item}: nothing was evicted while decoding"  # noqa: S101
        if self.contract.question is QuestionMode.UNSEEN:
            due = self.cell.budget(record.tokens, self.contract)
            assert held.least == held.most == due, (  # noqa: S101
                f"{record.item}: heads held {held.least} to {held.most} entries while decoding, "
                f"expected {due}"
            )
