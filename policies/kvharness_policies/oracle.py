"""The positive control of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import Capabilities, Future, group_mean
from kvharness_policies.rescoring import Rescoring

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class Oracle(Rescoring):
    """The positive control: keeps what the true question and answer will attend to.

    Score: ``s[k, j] = mean over h in group(k) of F[h, j]`` with ``F`` ``[H, n]`` the
    largest attention that any question or answer token pays to key ``j`` of the full cache.
    Source: ours. No deployable policy can know ``F``. It is not a proven upper bound either:
    attention under the full cache is not the cost of an eviction, and heads are scored alone.
    Evicting while decoding or in blocks, ``F`` stays that of the full cache and the context; it is
    0 for tokens of question and reply, which leave with the recents.
    """

    capabilities = Capabilities(decodes=True, blocks=True)

    needs = frozenset({Future()})

    def score(self, view: View) -> Tensor:
        return group_mean(view[Future()].float(), view.kv_heads)
