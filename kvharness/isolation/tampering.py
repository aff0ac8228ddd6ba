"""Policies that write into the tensors that all policies share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvharness.policy.trace import Trace


class TamperedError(Exception):
    """A policy wrote into the tensors of its view, which other policies see as well."""

    def __init__(self, policy: str) -> None:
        super().__init__(
            f"policy {policy!r}: it changed the tensors of its view in place; they are shared, so "
            f"work on a copy (tensor.clone())"
        )
        self.policy = policy


class ChangedBehindError(Exception):
    """Some policy wrote into shared tensors in a way that torch does not count (``.data``)."""


def _shared(trace: Trace) -> Iterator[torch.Tensor]:
    """The tensors that every policy sees."""
    yield trace.positions
    for layer in trace.layers:
        for _, tensor in layer.tensors():
            yield tensor


def versions(trace: Trace) -> list[int]:
    """Torch's counters of in-place changes: free, so each policy is watched by them."""
    return [tensor._version for tensor in _shared(trace)]  # noqa: SLF001 - it has no public name


def contents(trace: Trace) -> list[int]:
    """Sums over the bits, for changes that torch does not count."""
    return [int(_bits(tensor.detach()).sum()) for tensor in _shared(trace)]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return plain.view(kinds[plain.element_size()])
