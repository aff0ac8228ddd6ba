"""Cells and groups: what is run, and under which name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.contract import FIXED_ANCHORS, Anchor, budget_of, retention_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from fractions import Fraction

    from kvharness.contract import Contract


@dataclass(frozen=True, slots=True)
class Group:
    """All cells of one (suite, seed): they share every prefill."""

    suite: str
    seed: int

    def __str__(self) -> str:
        return f"{self.suite}-s{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Suite x policy x retention x seed; ``retention`` is None for `full` and `floor`."""

    suite: str
    policy: str
    retention: Fraction | None
    seed: int

    @property
    def group(self) -> Group:
        return Group(self.suite, self.seed)

    @property
    def retention_text(self) -> str | None:
        return None if self.retention is None else retention_text(self.retention)

    @property
    def name(self) -> str:
        """As in test ids: ``snapkv-r0.25-s1``, ``full-s1``."""
        return f"{self.column}-s{self.seed}"

    @property
    def column(self) -> str:
        """Policy and retention without the seed: ``snapkv-r0.25``."""
        text = self.retention_text
        return self.policy if text is None else f"{self.policy}-r{text}"

    def budget(self, tokens: int, contract: Contract, *, after: int = 0) -> int:
        """Entries per KV head for what is compressed, ``tokens`` of them.

        ``after`` counts those that follow the context, which `Anchor.FLOOR` keeps in the prompt
        layout: it is the ground on which nothing of the context is left.
        """
        if self.policy == Anchor.FULL:
            return tokens
        if self.retention is None:
            return min(tokens, contract.ground(after).total)
        return budget_of(self.retention, tokens)


def anchors_first(policy: str) -> tuple[int, str]:
    """Sort key of policies: the anchors in their own order, then the others by name."""
    anchors = [anchor.value for anchor in Anchor]
    return anchors.index(policy) if policy in anchors else len(anchors), policy


def cells_of(
    suite: str, *, retentions: Mapping[str, Sequence[Fraction]], seeds: int
) -> Iterator[Cell]:
    """The grid, seed by seed so that a group's cells lie together; fixed anchors once a seed.

    ``retentions`` gives those of each policy, in the order of the cells.
    """
    columns: list[tuple[str, Fraction | None]] = []
    for policy, chosen in retentions.items():
        fixed = policy in FIXED_ANCHORS
        columns += [(policy, None)] if fixed else [(policy, r) for r in chosen]
    for seed in range(seeds):
        for policy, retention in columns:
            yield Cell(suite=suite, policy=policy, retention=retention, seed=seed)
