"""The anchors of every table: ceiling, ground and positive control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities, Needs, Policy, group_mean

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class Full(Policy):
    """The ceiling: nothing is evicted, because the harness gives it a budget of all tokens.

    Score: zeros ``[K, n]``.
    Source: none, it is a control. No parameters; nothing to verify.
    Evicting while decoding or in blocks it keeps everything as well.
    """

    capabilities = Capabilities(decodes=True, blocks=True)

    def score(self, view: View) -> Tensor:
        return _zeros(view)


@dataclass(frozen=True)
class Floor(Policy):
    """The ground: only the contract's sinks and recents, which the harness makes its budget.

    Score: zeros ``[K, n]``; under any larger budget the earliest tokens would fill the rest.
    Source: none, it is a control. No parameters; nothing to verify.
    Evicting while decoding, its recents roll on; in blocks, later tokens see nothing else.
    """

    capabilities = Capabilities(decodes=True, blocks=True)

    def score(self, view: View) -> Tensor:
        return _zeros(view)


@dataclass(frozen=True)
class Oracle(Policy):
    """The positive control: keeps what the true question and answer will attend to.

    Score: ``s[k, j] = mean over h in group(k) of F[h, j]`` with ``F`` ``[H, n]`` the
    largest attention that any question or answer token pays to key ``j`` of the full cache.
    Source: ours. No deployable policy can know ``F``. It is not a proven upper bound either:
    attention under the full cache is not the cost of an eviction, and heads are scored alone.
    Evicting while decoding or in blocks, ``F`` stays that of the full cache and the context; it is
    0 for tokens of question and reply, which leave with the recents.
    """

    capabilities = Capabilities(decodes=True, blocks=True)

    needs = Needs(future=True)

    def score(self, view: View) -> Tensor:
        if view.future is None:
            raise ValueError("this view carries no future; declare needs = Needs(future=True)")
        return group_mean(view.future.float(), view.kv_heads)


def _zeros(view: View) -> Tensor:
    shape = (view.kv_heads, view.tokens)
    return torch.zeros(shape, dtype=torch.float32, device=view.keys.device)
