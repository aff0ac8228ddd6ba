"""What the scorer is allowed to see of a cached token."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

#: Tokens whose position is marked as first or recent, as in the default contract.
_SINKS, _RECENTS = 4, 16
POSITION_SIZE = 6


class Feature(StrEnum):
    """One source of information about a token."""

    POSITION = "position"
    KEYS = "keys"
    VALUES = "values"
    PREFILL = "prefill"


ALL = "all"


def parse_features(text: str) -> tuple[Feature, ...]:
    """``keys+values`` and the like, or ``all``, in the order of `Feature`.

    Raises:
        ValueError: not such a list.
    """
    names = list(Feature) if text == ALL else text.split("+")
    unknown = sorted(set(names) - set(Feature))
    if unknown or len(set(names)) < len(names):
        choices = ", ".join(Feature)
        raise ValueError(f"features={text!r}: expected {ALL}, or some of {choices} joined by '+'")
    return tuple(feature for feature in Feature if feature in names)


def position_features(tokens: int, device: torch.device) -> Tensor:
    """Where each token lies, float32 ``[tokens, 6]``.

    Distance from the start and from the end, as shares and on a log scale, and whether the token
    is one of the first 4 or of the last 16.
    """
    order = torch.arange(tokens, dtype=torch.float32, device=device)
    left = tokens - 1 - order
    return torch.stack(
        (
            order / tokens,
            left / tokens,
            torch.log1p(order) / 8,
            torch.log1p(left) / 8,
            (order < _SINKS).float(),
            (left < _RECENTS).float(),
        ),
        dim=-1,
    )


def prefill_feature(prefill: Tensor) -> Tensor:
    """Mean attention received, on a log scale relative to an even share: ``[..., n, 1]``."""
    tokens = prefill.shape[-1]
    return torch.log(prefill.float() * tokens + 1e-3)[..., None] / 4
