"""What is kept: how many entries, which, and how they lie in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.model.evicted_cache import BatchCache, Kept
from kvharness.model.prefilled import Prefilled
from kvharness.testing.examples import PURE, examples
from kvharness.testing.mistake import Mistake, expect
from kvharness.testing.reading import read
from kvharness.testing.storage import stored
from kvharness.testing.strategies import larger_budgets
from kvharness.testing.subject import as_given, cases_for, long_case, ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kvharness.policy.interface import Policy, ScoreFunction
    from kvharness.testing.case import Case
    from kvharness.testing.reading import Reading

_WHOLE = {torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8}


def check_exact_budget(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """Budgets add up to the entries that were asked for, and each head keeps its own exactly.

    Unless `Capabilities.head_wise` is declared, every head of every layer has the same.

    Raises:
        Mistake: `allocate` raised or gave other totals, or `select` kept more or fewer.
    """
    subject, head_wise = ready(policy), as_given(policy).capabilities.head_wise

    def verify(case: Case) -> None:
        reading = read(subject, case)
        failed = reading.stage == "allocate" and "allocate" not in reading.returned
        expect(not failed, f"allocate raised {reading.reason}")
        if "allocate" in reading.returned:
            budgets = _budgets(reading.last("allocate"), case)
            _expect_allocation(budgets, case, head_wise=head_wise)
            _expect_counts(reading, budgets)

    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        verify(case)

    holds()
    # What Hypothesis draws clusters: of 200 contexts 0 to 25 were longer than 48 tokens.
    verify(long_case(policy))


def _budgets(given: Any, case: Case) -> list[list[int]]:
    shape = (case.shape.layers, case.shape.kv_heads)
    if not isinstance(given, torch.Tensor) or tuple(given.shape) != shape:
        form = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
        raise Mistake(f"allocate returned {form}, expected an integer tensor {shape}")
    expect(given.dtype in _WHOLE, f"allocate returned {given.dtype}, expected integers")
    rows: list[list[int]] = given.tolist()
    return rows


def _expect_allocation(budgets: list[list[int]], case: Case, *, head_wise: bool) -> None:
    total, least = sum(map(sum, budgets)), len(case.protected)
    told = f"{case.budget} x {case.shape.layers} layers x {case.shape.kv_heads} heads"
    expect(total == case.total, f"allocate gave {total} entries, expected {told} = {case.total}")
    for where, number in _each(budgets):
        expect(
            least <= number <= case.shape.tokens,
            f"allocate gave {where} {number} entries, expected {least} (sinks and recents) to "
            f"{case.shape.tokens} (all tokens)",
        )
        expect(
            head_wise or number == case.budget,
            f"allocate gave {where} {number} entries, expected {case.budget} in every head; "
            f"declare capabilities = Capabilities(head_wise=True)",
        )


def _expect_counts(reading: Reading, budgets: list[list[int]]) -> None:
    mask = reading.last("select") if reading.mask is None else reading.mask
    if _is_mask(mask) and mask.shape[:2] == (len(budgets), len(budgets[0])):
        counts = mask.sum(dim=-1).tolist()
        for (where, kept), (_, due) in zip(_each(counts), _each(budgets), strict=True):
            expect(kept == due, f"select kept {kept} entries in {where}, expected {due}")


def _each(rows: list[list[int]]) -> Iterator[tuple[str, int]]:
    for layer, heads in enumerate(rows):
        for head, number in enumerate(heads):
            yield f"head {head} of layer {layer}", number


def _is_mask(mask: Any) -> bool:
    return isinstance(mask, torch.Tensor) and mask.dtype == torch.bool and mask.dim() == 3


def check_protected_kept(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """Sinks and recents stay in every head whatever the scores.

    Raises:
        Mistake: names the first protected token that was evicted, and where.
    """
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        reading = read(subject, case)
        mask = reading.last("select") if reading.mask is None else reading.mask
        shape = (case.shape.layers, case.shape.kv_heads, case.shape.tokens)
        if not _is_mask(mask) or tuple(mask.shape) != shape or not _is_exact(reading, mask):
            return
        for layer, head in torch.cartesian_prod(*map(torch.arange, shape[:2])).view(-1, 2).tolist():
            for token in case.protected:
                kind = "sink" if token < case.protection.sinks else "recent token"
                expect(
                    mask[layer, head, token],
                    f"{kind} {token} of layer {layer}, head {head} was evicted; select must keep "
                    f"every token of protected",
                )

    holds()


def _is_exact(reading: Reading, mask: Tensor) -> bool:
    """Whether each head keeps its budget; where not, `check_exact_budget` says so."""
    return torch.equal(mask.sum(dim=-1), reading.last("allocate").to(torch.int64))


def check_kept_positions(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """What is kept is a mask over the tokens; the evicted cache holds those entries in order.

    Sorted, unique and in range by construction of a mask; that the cache is so is looked up
    in it, with the entries' dtype and bits.

    Raises:
        Mistake: `select` raised or returned no mask, or the cache holds something else.
    """
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        reading = read(subject, case)
        failed = reading.stage == "select" and "select" not in reading.returned
        expect(not failed, f"select raised {reading.reason}")
        if "select" in reading.returned:
            _expect_mask(reading.last("select"), case)
        if reading.mask is not None:
            _expect_stored(reading.mask, case)

    holds()


def _expect_mask(mask: Any, case: Case) -> None:
    shape = (case.shape.layers, case.shape.kv_heads, case.shape.tokens)
    if not isinstance(mask, torch.Tensor):
        raise Mistake(f"select returned {type(mask).__name__}, expected a bool tensor {shape}")
    form = f"{mask.dtype} {tuple(mask.shape)}"
    hint = "True at kept positions, not the positions themselves"
    expect(
        mask.dtype == torch.bool and tuple(mask.shape) == shape,
        f"select returned {form}, expected a torch.bool {shape}: {hint}",
    )


def _expect_stored(mask: Tensor, case: Case) -> None:
    layers = dict(enumerate(case.trace(frozenset()).layers))
    context = Prefilled(layers=layers, sliding={}, tokens=case.shape.tokens)
    cache = BatchCache(context, [Kept(mask=mask)], room=1)
    for layer, trace in layers.items():
        for head, (keys, values) in enumerate(stored(cache, layer)):
            kept = mask[layer, head].nonzero()[:, 0].tolist()
            for name, held, full in (("keys", keys, trace.keys), ("values", values, trace.values)):
                expect(
                    held.dtype == full.dtype and torch.equal(held, full[head, kept]),
                    f"the cache of layer {layer}, head {head} does not hold the {name} of tokens "
                    f"{kept} in order",
                )


def check_nested_budgets(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """A smaller budget keeps a subset of what a larger one keeps.

    Raises:
        Mistake: names a token that the smaller budget keeps and the larger one evicts.
    """
    subject = ready(policy)

    @examples(count)
    @given(data=st.data(), small=cases_for(policy))
    def holds(data: st.DataObject, small: Case) -> None:
        large = data.draw(larger_budgets(small), label="larger budget")
        masks = [read(subject, case).mask for case in (small, large)]
        if masks[0] is None or masks[1] is None:
            return
        lost = (masks[0] & ~masks[1]).nonzero().tolist()
        for layer, head, token in lost[:1]:
            raise Mistake(
                f"token {token} of layer {layer}, head {head} is kept at budget {small.budget} and "
                f"evicted at {large.budget}; declare capabilities = Capabilities(nested=False)"
            )

    holds()
