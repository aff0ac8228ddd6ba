"""The ceiling of every table."""

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
class Full(Rescoring):
    """The ceiling: nothing is evicted, because the harness gives it a budget of all tokens.

    Score: zeros ``[K, n]``.
    Source: none, it is a control. No parameters; nothing to verify.
    Evicting while decoding or in blocks it keeps everything as well.
    """

    capabilities = Capabilities(decodes=True, blocks=True)

    def score(self, view: View) -> Tensor:
        return zero_scores(view)
