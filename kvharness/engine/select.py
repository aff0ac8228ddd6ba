"""From scores to keep masks at an exact budget, and the checks on what a policy returned."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from kvharness.contract import Protection
from kvharness.errors import PolicyProblem
from kvharness.policy.choice import Choice
from kvharness.policy.entries import protected_mask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from kvharness.policy.interface import Policy
    from kvharness.policy.trace import Trace
    from kvharness.policy.view import View


def keep_mask(
    policy: Policy, trace: Trace, budget: int, protection: Protection, *, name: str
) -> Tensor:
    """Score, then select: `score_tokens` and `select_entries` in one.

    Args:
        policy: the policy.
        trace: what it may look at, already narrowed with `Trace.for_policy`.
        budget: entries per KV head; the total is ``budget * layers * K`` exactly.
        protection: the contract's, already fitted to the budget.
        name: how messages name the policy.

    Returns:
        Bool ``[layers, K, n]`` on the CPU.

    Raises:
        PolicyProblem: the policy broke the interface; names the layer and what was expected.
    """
    scores = score_tokens(policy, trace, name=name)
    return select_entries(policy, trace, scores, budget, protection, name=name)


def score_tokens(policy: Policy, trace: Trace, *, name: str) -> Tensor:
    """Verified scores, float32 ``[layers, K, n]``; they hold for every budget."""
    return stacked(((view, policy.score(view)) for view in trace.views), "score", name)


def select_entries(
    policy: Policy,
    trace: Trace,
    scores: Tensor,
    budget: int,
    protection: Protection,
    *,
    name: str,
) -> Tensor:
    """Run protect, allocate and select on verified scores, and verify each of their results."""
    shape = (int(scores.shape[0]), int(scores.shape[1]), int(scores.shape[2]))
    tokens = shape[2]
    whole = whole_protection(policy, tokens, budget, protection, name)
    protected = protected_mask(tokens, whole).to(scores.device)

    def choice() -> Choice:
        # Copies: what one stage does to its arguments must not reach the next, nor what verifies.
        return Choice(
            scores=scores.clone(), budget=budget, protected=protected.clone(), trace=trace
        )

    budgets = verified_budgets(policy.allocate(choice()), shape, budget, name)
    least = protected_mask(tokens, protection)
    _expect_room(budgets, least, name)
    mask = policy.select(choice(), budgets.clone().to(scores.device))
    return verified_mask(mask, shape, budgets, least, name)


def whole_protection(
    policy: Policy, tokens: int, budget: int, protection: Protection, name: str
) -> Protection:
    """The contract's protection with what the policy adds to it."""
    extra = policy.protect(tokens, budget)
    if not isinstance(extra, Protection):
        raise PolicyProblem(name, f"protect returned {_kind(extra)}, expected a Protection")
    return protection.extend(extra, budget)


def stacked(scores: Iterable[tuple[View, object]], stage: str, name: str) -> Tensor:
    """Verified scores of all layers from those of each: shape, dtype, and finiteness."""
    checked: list[Tensor] = []
    for view, score in scores:
        _expect_tensor(score, (view.kv_heads, view.tokens), stage, name, layer=view.layer)
        assert isinstance(score, torch.Tensor)  # noqa: S101 - narrowed by the call above
        if score.dtype != torch.float32:
            msg = f"{stage} returned {score.dtype}, expected torch.float32"
            raise PolicyProblem(name, msg, layer=view.layer)
        checked.append(score)
    together = torch.stack(checked)
    _expect_finite(together, stage, name)
    return together


def _expect_finite(scores: Tensor, stage: str, name: str) -> None:
    # Once for all layers: each look waits for the device.
    finite = scores.isfinite().flatten(1).all(dim=1).cpu()
    if not finite.all():
        layer = int((~finite).nonzero()[0])
        count = int((~scores[layer].isfinite()).sum())
        msg = f"{stage} has {count} NaN or infinite entries, expected finite numbers"
        raise PolicyProblem(name, msg, layer=layer)


def verified_budgets(
    budgets: object, shape: tuple[int, int, int], budget: int, name: str
) -> Tensor:
    """Check that int ``[layers, K]`` budgets are in range and add up exactly."""
    _expect_tensor(budgets, shape[:2], "allocate", name)
    assert isinstance(budgets, torch.Tensor)  # noqa: S101
    if budgets.is_floating_point() or budgets.dtype == torch.bool:
        raise PolicyProblem(name, f"allocate returned {budgets.dtype}, expected integers")
    given = budgets.to("cpu", torch.int64)
    layers, heads, tokens = shape
    wrong = ((given < 0) | (given > tokens)).any(dim=1)
    if wrong.any():
        layer = int(wrong.nonzero()[0])
        msg = f"allocate gave {given[layer].tolist()}, expected numbers from 0 to {tokens}"
        raise PolicyProblem(name, msg, layer=layer)
    total, expected = int(given.sum()), budget * layers * heads
    if total != expected:
        msg = f"budgets add up to {total}, expected {budget} x {layers} x {heads} = {expected}"
        raise PolicyProblem(name, msg)
    return given


def _expect_room(budgets: Tensor, protected: Tensor, name: str) -> None:
    """Check that each head can hold what the contract protects: no `select` could keep it there."""
    least = int(protected.sum())
    short = (budgets < least).nonzero()
    if len(short):
        layer, head = (int(index) for index in short[0])
        raise PolicyProblem(
            name,
            f"allocate gave head {head} {int(budgets[layer, head])} entries, expected at least "
            f"{least}: the sinks and recents stay in every head; allocate what is left, or lower "
            f"--kv-sinks and --kv-recents",
            layer=layer,
        )


def verified_mask(
    mask: object, shape: tuple[int, int, int], budgets: Tensor, protected: Tensor, name: str
) -> Tensor:
    """Check a keep mask against its budgets and the contract's protected tokens."""
    _expect_tensor(mask, shape, "select", name)
    assert isinstance(mask, torch.Tensor)  # noqa: S101
    if mask.dtype != torch.bool:
        raise PolicyProblem(name, f"select returned {mask.dtype}, expected torch.bool")
    kept = mask.cpu()
    counts = kept.sum(dim=-1)
    if not torch.equal(counts, budgets):
        layer = int((counts != budgets).any(dim=1).nonzero()[0])
        got, due = counts[layer].tolist(), budgets[layer].tolist()
        raise PolicyProblem(name, f"select kept {got} entries, expected {due}", layer=layer)
    lost = (~kept & protected).flatten(1).any(dim=1)
    if lost.any():
        layer = int(lost.nonzero()[0])
        tokens = (~kept[layer] & protected).any(dim=0).nonzero().flatten().tolist()
        msg = f"select evicted protected tokens {tokens[:8]}; sinks and recents must stay"
        raise PolicyProblem(name, msg, layer=layer)
    return kept


def mask_digest(mask: Tensor) -> str:
    """16 hex digits that name a keep mask."""
    packed = np.packbits(mask.cpu().numpy())
    return hashlib.sha256(packed.tobytes() + repr(tuple(mask.shape)).encode()).hexdigest()[:16]


def _expect_tensor(
    given: object, shape: tuple[int, ...], stage: str, name: str, *, layer: int | None = None
) -> None:
    if not isinstance(given, torch.Tensor):
        msg = f"{stage} returned {_kind(given)}, expected a tensor"
        raise PolicyProblem(name, msg, layer=layer)
    if tuple(given.shape) != shape:
        msg = f"{stage} returned shape {tuple(given.shape)}, expected {shape}"
        raise PolicyProblem(name, msg, layer=layer)


def _kind(thing: object) -> str:
    return type(thing).__name__
