"""Kept sets as the engine makes them, and which of them every processor makes."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from kvharness.engine import evictor, selector
from kvharness.engine.select import select_entries, whole_protection
from kvharness.policy.entries import protected_mask

if TYPE_CHECKING:
    import pytest
    from torch import Tensor

    from kvharness import Policy, Protection, Trace

#: What the lowest score that is kept and the highest one that is not must be apart, relative to
#: themselves. Without vector units instead of AVX2, scores move by 1.5e-5 at most.
NEAR = 1e-4
#: The same, relative to the largest score, where scores go below 0 and may have cancelled: 1e-6 was
#: measured.
NEAR_OF_LARGEST = 1e-5
#: Bytes of a set that is written out, so that one sees which tokens moved.
_SHORT = 40


@dataclass(slots=True)
class Rows:
    """What every layer and head kept in each selection of one cell, in order."""

    masks: list[Tensor] = field(default_factory=list)
    sure: list[Tensor] = field(default_factory=list)

    def described(self) -> list[str]:
        """A text for each layer and head."""
        return [self._text(*place) for place in self._places()]

    def certain(self) -> list[bool]:
        """For each layer and head, whether no near-tie decided."""
        if not self.masks:
            return []
        sure = torch.stack(self.sure).all(dim=0)
        # After one choice that is not sure, a cell that reads on sees another cache.
        return [bool(sure.all() if self.masks[1:] else sure[place]) for place in self._places()]

    def _places(self) -> list[tuple[int, int]]:
        layers, heads = self.masks[0].shape[:2] if self.masks else (0, 0)
        return [(layer, head) for layer in range(layers) for head in range(heads)]

    def _text(self, layer: int, head: int) -> str:
        rows = [np.packbits(mask[layer, head].numpy()).tobytes() for mask in self.masks]
        if len(rows) == 1 and len(rows[0]) <= _SHORT:
            return base64.b64encode(rows[0]).decode()
        return hashlib.sha256(b"".join(rows)).hexdigest()[:16]


class Borders:
    """Notes every selection of cells of one retention, by the name of the policy."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.of: dict[str, Rows] = {}
        for place in (selector, evictor):
            patch.setattr(place, "select_entries", self._note)

    def _note(
        self,
        policy: Policy,
        trace: Trace,
        scores: Tensor,
        budget: int,
        protection: Protection,
        *,
        name: str,
    ) -> Tensor:
        mask = select_entries(policy, trace, scores, budget, protection, name=name)
        tokens = mask.shape[-1]
        whole = whole_protection(policy, tokens, budget, protection, name)
        rows = self.of.setdefault(name, Rows())
        rows.masks.append(mask)
        rows.sure.append(is_wide(scores, mask, protected_mask(tokens, whole)))
        return mask


def is_wide(scores: Tensor, mask: Tensor, protected: Tensor) -> Tensor:
    """Whether no score is near the border of a kept set, bool ``[layers, K]``.

    Equal scores are no near-tie: they are copies of one number, or whole numbers, on every
    processor. Where a policy chooses by more than scores, there is no border to look at.

    Args:
        scores: float32 ``[layers, K, n]``.
        mask: bool ``[layers, K, n]``, what was kept.
        protected: bool ``[n]``, kept whatever the scores.
    """
    near = scores.abs() * NEAR
    if bool((scores < 0).any()):
        near += scores.abs().amax(dim=-1, keepdim=True) * NEAR_OF_LARGEST
    kept, lost = mask & ~protected, ~mask & ~protected
    border = scores.masked_fill(~kept, float("inf")).amin(dim=-1, keepdim=True)
    beyond = scores.masked_fill(~lost, float("-inf")).amax(dim=-1, keepdim=True)
    close = ((scores - border).abs() <= near) & (scores != border)
    tied = (lost & (scores == border)).any(dim=-1)
    wide = ~(close & lost).any(dim=-1) & ~(tied & (close & kept).any(dim=-1))
    return wide | (border < beyond)[..., 0]
