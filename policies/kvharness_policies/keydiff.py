"""Keys unlike the mean direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn.functional import cosine_similarity, normalize

from kvharness import Capabilities
from kvharness_policies.rescoring import Rescoring

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


@dataclass(frozen=True)
class KeyDiff(Rescoring):
    """KeyDiff (arXiv 2504.15364): keys unlike the mean direction stay.

    Score: ``s[k, j] = -cos(key[k, j], a[k])`` with ``a[k] = mean_j key[k, j] / ||key[k, j]||``
    in float32 on post-RoPE keys; ``[K, n, d]`` to ``[K, n]``. The order is that of the summed
    pairwise cosines.
    No parameters and no protection.
    Deviations: by default one eviction at the end of a dense prefill; the paper evicts after each
    block of 128 prompt tokens, as here in blocks, and while decoding, which is left out. No
    official code was found; the formula is that of NVIDIA/kvpress. Not verified: the paper's
    treatment of decoding, and its headline gap, which does not fit a transcription of its table.
    """

    capabilities = Capabilities(blocks=True)

    def score(self, view: View) -> Tensor:
        keys = view.keys.float()
        anchor = normalize(keys, dim=-1).mean(dim=1, keepdim=True)
        return -cosine_similarity(keys, anchor, dim=-1)
