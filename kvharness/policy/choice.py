"""What the two stages of choosing are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.policy.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a policy allocates and selects from; letters as in `View`.

    Each stage gets tensors of its own, so that what one does to them reaches no other.

    Attributes:
        scores: float32 ``[layers, K, n]``, those of `Policy.score`, or of `Stepping.step`.
        budget: mean entries of a head, so that ``budget * layers * K`` are kept in all.
        protected: bool ``[n]``, tokens that every head must keep: the contract's and the policy's.
        trace: what the policy may see of the context, a view for each layer; read-only.
    """

    scores: Tensor
    budget: int
    protected: Tensor
    trace: Trace
