"""The ground of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import Capabilities
from kvharness_policies.rescoring import Rescoring
from kvharness_policies.zero_scores import zero_scores

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class Floor(Rescoring):
    """The ground: only the contract's sinks and recents, which the harness makes its budget.

    Score: zeros ``[K, n]``; under any larger budget the earliest tokens would fill the rest.
    Source: none, it is a control. No parameters; nothing to verify.
    Evicting while decoding, its recents roll on; in blocks, later tokens see nothing else.
    """

    capabilities = Capabilities(decodes=True, blocks=True)

    def score(self, view: View) -> Tensor:
        return zero_scores(view)
