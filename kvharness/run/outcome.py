"""What became of each group, and what a run did in all."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from kvharness.items.repetition import Novelty

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from kvharness.cell import Cell
    from kvharness.records.record import Record


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

    def sort(self, items: Sequence[str]) -> None:
        """Put the records of each cell in the order of the items' names."""
        order = {name: number for number, name in enumerate(items)}
        for records in self.records.values():
            records.sort(key=lambda record: order[record.item])


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Of one group: numbers alone, since xdist carries builtins only from its workers."""

    group: str
    computed: int
    reused: int
    novelty: Novelty

    @classmethod
    def of(cls, group: object, outcome: GroupOutcome) -> Tally:
        return cls(
            group=str(group),
            computed=outcome.computed,
            reused=outcome.reused,
            novelty=outcome.novelty,
        )

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Tally:
        """The inverse of `as_dict`."""
        return cls(**{**given, "novelty": Novelty(**given["novelty"])})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Tallies:
    """Of all groups whose tests have reported."""

    def __init__(self) -> None:
        self._by_group: dict[str, Tally] = {}

    def add(self, tally: Tally) -> None:
        """Count a group once, although each of its tests brings its tally.

        After a crash another worker reuses what the first one computed: that was this run's work.
        """
        known = self._by_group.setdefault(tally.group, tally)
        if tally.computed > known.computed:
            self._by_group[tally.group] = tally

    def lines(self, store: object) -> Iterator[str]:
        """For the end of a run; none where nothing was run."""
        tallies = list(self._by_group.values())
        yield from _novelty_lines([tally for tally in tallies if tally.novelty.windows])
        if tallies:
            computed, reused = sum(t.computed for t in tallies), sum(t.reused for t in tallies)
            yield f"{computed} records computed, {reused} reused; store: {store}"


def _novelty_lines(tallies: list[Tally]) -> Iterator[str]:
    if not tallies:
        return
    # Within a group: that is what a worker can count. On the default grid, 99.99 % of the windows
    # are distinct within their group and 99.7 % among all.
    whole = sum((tally.novelty for tally in tallies), Novelty())
    least = min(tallies, key=lambda tally: (tally.novelty.share, tally.group))
    yield (
        f"{whole.share:.1%} of the 50-token windows of the generated contexts are distinct within "
        f"their suite and seed; fewest in {least.group}, {least.novelty.share:.1%}"
    )
