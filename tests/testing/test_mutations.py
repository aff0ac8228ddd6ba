"""Faults planted in the harness's own selection and cache are caught by the checks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from kvharness.engine import select
from kvharness.model.evicted_cache import BatchCache
from kvharness.policy import entries
from kvharness.policy.entries import protected_mask, top_entries
from kvharness.testing import (
    Mistake,
    check_cells_independent,
    check_exact_budget,
    check_kept_positions,
    check_masked_equals_evicted,
    check_protected_kept,
    check_survives_repeated_compression,
)
from kvharness_policies.keydiff import KeyDiff
from kvharness_policies.streaming_llm import StreamingLLM

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kvharness import Policy, Protection
    from kvharness.model.evicted_cache import Segment
    from kvharness.policy.trace import LayerTrace

    Plant = Callable[[pytest.MonkeyPatch], None]
    CheckFunction = Callable[..., None]

COUNT = 60
gather = BatchCache._gather


def unverified(patch: pytest.MonkeyPatch) -> None:
    """Let every mask pass: the checks must not lean on the harness's verification."""
    patch.setattr(select, "verified_mask", lambda mask, *_: mask)


def drop_a_sink(patch: pytest.MonkeyPatch) -> None:
    def mutated(tokens: int, protection: Protection) -> Tensor:
        mask = protected_mask(tokens, protection)
        mask[:1] = False
        return mask

    patch.setattr(select, "protected_mask", mutated)


def drop_the_oldest_recent(patch: pytest.MonkeyPatch) -> None:
    def mutated(tokens: int, protection: Protection) -> Tensor:
        mask = protected_mask(tokens, protection)
        mask[max(protection.sinks, tokens - protection.recents) :][:1] = False
        return mask

    patch.setattr(select, "protected_mask", mutated)


def keep_one_too_many(patch: pytest.MonkeyPatch) -> None:
    unverified(patch)
    patch.setattr(entries, "top_entries", lambda s, budgets, p: top_entries(s, budgets + 1, p))


def keep_one_too_few(patch: pytest.MonkeyPatch) -> None:
    unverified(patch)
    patch.setattr(
        entries, "top_entries", lambda s, budgets, p: top_entries(s, (budgets - 1).clamp_min(0), p)
    )


def protect_by_a_large_score(patch: pytest.MonkeyPatch) -> None:
    """Padding ties with the best scores, and the later token loses."""
    unverified(patch)

    def mutated(scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        padded = scores.masked_fill(protected, scores.max().item())
        return top_entries(padded, budgets, protected & False)

    patch.setattr(entries, "top_entries", mutated)


def planted_gather(patch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor]) -> None:
    def mutated(self: BatchCache, layer: LayerTrace, rows: slice, index: Tensor) -> Segment:
        return gather(self, layer, rows, change(index))

    patch.setattr(BatchCache, "_gather", mutated)


def unsorted_slots(patch: pytest.MonkeyPatch) -> None:
    planted_gather(patch, lambda index: index.flip(-1))


def a_slot_twice(patch: pytest.MonkeyPatch) -> None:
    def repeat(index: Tensor) -> Tensor:
        index = index.clone()
        index[:, 1:2] = index[:, :1]
        return index

    planted_gather(patch, repeat)


def slots_of_the_next_row(patch: pytest.MonkeyPatch) -> None:
    planted_gather(patch, lambda index: index.roll(1, dims=0))


def stale_mask(patch: pytest.MonkeyPatch) -> None:
    expect = BatchCache.expect

    def mutated(self: BatchCache, offsets: Tensor, visible: Tensor | None) -> None:
        before = dict(self._masks)
        expect(self, offsets, visible)
        self._masks.update(before)

    patch.setattr(BatchCache, "expect", mutated)


def compact_keys_left_in_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BatchCache, "_compact_rows", lambda *_: iter(()))


def rows_of_the_first_cell(patch: pytest.MonkeyPatch) -> None:
    """Every cell of a batch reads what the first one keeps, where lengths agree."""
    planted_gather(patch, lambda index: index[:1].expand_as(index).contiguous())


KEYS, COMPACT = KeyDiff(), StreamingLLM()
PLANTED: list[tuple[Plant, CheckFunction, Policy, str]] = [
    (drop_a_sink, check_protected_kept, KEYS, "sink 0 of layer 0, head 0 was evicted"),
    (drop_a_sink, check_survives_repeated_compression, KEYS, "sink 0 was lost in compression 1"),
    (drop_the_oldest_recent, check_protected_kept, KEYS, r"recent token \d+ of layer 0"),
    (keep_one_too_many, check_exact_budget, KEYS, r"select kept \d+ entries in head 0 of layer 0"),
    (keep_one_too_few, check_exact_budget, KEYS, r"select kept \d+ entries in head 0 of layer 0"),
    (protect_by_a_large_score, check_protected_kept, KEYS, r"\d+ of layer 0, head 0 was evicted"),
    (unsorted_slots, check_kept_positions, KEYS, r"does not hold the keys of tokens .* in order"),
    (unsorted_slots, check_survives_repeated_compression, KEYS, "the cache holds tokens"),
    (a_slot_twice, check_kept_positions, KEYS, "does not hold the keys of tokens"),
    (a_slot_twice, check_masked_equals_evicted, KEYS, "from those under the mask"),
    (slots_of_the_next_row, check_masked_equals_evicted, KEYS, "from those under the mask"),
    (stale_mask, check_survives_repeated_compression, KEYS, "the size of tensor"),
    (compact_keys_left_in_place, check_masked_equals_evicted, COMPACT, "from those under the mask"),
    (rows_of_the_first_cell, check_cells_independent, KEYS, "differently beside"),
]
IDS = [f"{plant.__name__}-{check.__name__}" for plant, check, _, _ in PLANTED]


@pytest.mark.parametrize(("plant", "check", "policy", "message"), PLANTED, ids=IDS)
def test_a_planted_fault_is_caught(
    plant: Plant,
    check: CheckFunction,
    policy: Policy,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(policy, count=5)
    plant(monkeypatch)
    with pytest.raises((Mistake, RuntimeError)) as caught:
        check(policy, count=COUNT)
    assert re.search(message, str(caught.value))
