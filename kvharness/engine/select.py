"""From scores to keep masks at an exact budget, and the checks on what a policy returned."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from kvharness.contract import Protection
from kvharness.errors import PolicyProblem
from kvharness.policy.entries import protected_mask
from kvharness.policy.interface import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from kvharness.policy.trace import Trace
    from kvharness.policy.view import View


def keep_mask(
    policy: Policy, trace: Trace, budget: int, protection: Protection, *, name: str
) -> Tensor:
    """Score, then select: `score_tokens`, `informed_policy` and `select_entries` in one.

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
    informed = informed_policy(policy, trace, name=name)
    return select_entries(informed, scores, budget, protection, name)


def informed_policy(policy: Policy, trace: Trace, *, name: str) -> Policy:
    """The policy that selects from the scores of a trace."""
    informed = policy.informed(trace)
    if not isinstance(informed, Policy):
        raise PolicyProblem(name, f"informed returned {_kind(informed)}, expected a Policy")
    return informed


def score_tokens(policy: Policy, trace: Trace, *, name: str) -> Tensor:
    """Verified scores, float32 ``[layers, K, n]``; they hold for every budget."""
    shape = (len(trace.layers), trace.kv_heads, trace.tokens)
    return verified_scores(_score_all(policy, trace, name), shape, name)


def select_entries(
    policy: Policy, scores: Tensor, budget: int, protection: Protection, name: str
) -> Tensor:
    """Run protect, allocate and select on verified scores, and verify each of their results."""
    shape = (int(scores.shape[0]), int(scores.shape[1]), int(scores.shape[2]))
    tokens = shape[2]
    whole = whole_protection(policy, tokens, budget, protection, name)
    protected = protected_mask(tokens, whole).to(scores.device)
    # Copies: what one stage does to its arguments must not reach the next, nor what verifies it.
    allocated = policy.allocate(scores.clone(), budget, protected.clone())
    budgets = verified_budgets(allocated, shape, budget, name)
    least = protected_mask(tokens, protection)
    _expect_room(budgets, least, name)
    mask = policy.select(scores.clone(), budgets.clone().to(scores.device), protected)
    return verified_mask(mask, shape, budgets, least, name)


def whole_protection(
    policy: Policy, tokens: int, budget: int, protection: Protection, name: str
) -> Protection:
    """The contract's protection with what the policy adds to it."""
    extra = policy.protect(tokens, budget)
    if not isinstance(extra, Protection):
        raise PolicyProblem(name, f"protect returned {_kind(extra)}, expected a Protection")
    return protection.extend(extra, budget)


def _score_all(policy: Policy, trace: Trace, name: str) -> object:
    if type(policy).score_all is not Policy.score_all:
        return policy.score_all(trace)
    return stacked(((view, policy.score(view)) for view in trace.views), "score", name)


def stacked(scores: Iterable[tuple[View, object]], stage: str, name: str) -> Tensor:
    """Scores of all layers from those of each, which are checked one by one."""
    checked: list[Tensor] = []
    for view, score in scores:
        _expect_tensor(score, (view.kv_heads, view.tokens), stage, name, layer=view.layer)
        assert isinstance(score, torch.Tensor)  # noqa: S101 - narrowed by the call above
        _expect_float32(score, name, layer=view.layer)
        checked.append(score)
    return torch.stack(checked)


def verified_scores(scores: object, shape: tuple[int, int, int], name: str) -> Tensor:
    """Check shape, dtype and finiteness of ``[layers, K, n]`` scores."""
    _expect_tensor(scores, shape, "score", name)
    assert isinstance(scores, torch.Tensor)  # noqa: S101 - narrowed by the call above
    _expect_float32(scores, name)
    finite = scores.isfinite().flatten(1).all(dim=1).cpu()
    if not finite.all():
        layer = int((~finite).nonzero()[0])
        count = int((~scores[layer].isfinite()).sum())
        msg = f"score has {count} NaN or infinite entries, expected finite numbers"
        raise PolicyProblem(name, msg, layer=layer)
    return scores


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


def _expect_float32(scores: Tensor, name: str, *, layer: int | None = None) -> None:
    if scores.dtype != torch.float32:
        msg = f"score returned {scores.dtype}, expected torch.float32"
        raise PolicyProblem(name, msg, layer=layer)


def _kind(thing: object) -> str:
    return type(thing).__name__
