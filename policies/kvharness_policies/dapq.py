"""Made-up queries that stand where decoding will begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import max_pool1d

from kvharness import Ends, Policy, RandomTokens, Text, group_mean, probe_attention

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Probe, View

CONTENTS = ("prefix-suffix", "random", "fixed")
#: Ours: the paper's nonsense is not in its text.
_NONSENSE = (
    "Seven umbrellas quietly negotiate with the purple arithmetic of a sleeping harbour, while "
    "every second staircase forgets its own marmalade and the moon files a complaint in brass."
)


@dataclass(frozen=True)
class DapQ(Policy):
    """DapQ (arXiv 2603.11564): attention of pseudo queries at the positions of decoding.

    After prefill, ``N`` tokens are read at positions ``n + offset .. n + offset + N - 1`` and
    forgotten. Score: ``s[k, j] = mean over h in group(k) of pool_j(sum over i < N of
    P[h, i, j])``; ``P`` is ``[H, N, n]``, softmax over all ``n`` context keys and the pseudo keys
    up to ``i``; ``[H, n]`` to ``[K, n]``. Decoding goes on from position ``n``.

    Args:
        queries: ``N``, 32: the paper's for all its methods.
        prefix: with ``content="prefix-suffix"``, the pseudo tokens are the context's first
            ``prefix`` and its last ``N - prefix``: 4 and 28, the paper's on LongBench; on its
            second version 8 and 24, or 2 and 30. A shorter context is taken whole.
        content: or ``"random"`` ids of the vocabulary, or ``"fixed"``, the same nonsense always.
            A random stretch of other text, which the paper tries too, is left out.
        offset: 0, right behind the context; ``-n`` or less puts the pseudo tokens at the
            beginning. What they see is the whole context wherever they stand.
        kernel: 1, no pooling, as in the paper's formula; 7 pools by maximum, as `SnapKV` does.

    Source: the paper's full text; no official code was found. Ours, where it is silent: the mean
    over the query group, and pseudo keys in the softmax, which its "mutual attention among these
    queries" implies. ``suffix`` is no parameter of its own: it is what ``prefix`` leaves of ``N``.
    Nothing is protected but what the contract protects, as in the formula. The contract decides
    whether the context's end is the question, and the suffix with it; the paper compresses with
    the question in sight (``--kv-question=prompt``).
    Not verified: the paper's tables. By these, content matters as well: on LongBench random and
    nonsense tokens score below SnapKV.
    """

    queries: int = 32
    prefix: int = 4
    content: str = "prefix-suffix"
    offset: int = 0
    kernel: int = 1

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ValueError(f"queries={self.queries}: expected 1 or more tokens")
        if not 0 <= self.prefix <= self.queries:
            raise ValueError(f"prefix={self.prefix}: expected 0 to queries={self.queries} tokens")
        if self.content not in CONTENTS:
            raise ValueError(f"content={self.content!r}: expected one of {', '.join(CONTENTS)}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel}: expected an odd number, 1 or more")

    @property
    def needs(self) -> frozenset[Probe]:
        return frozenset({self.probe})

    @property
    def probe(self) -> Probe:
        """The pseudo tokens."""
        if self.content == "random":
            return RandomTokens(count=self.queries, offset=self.offset)
        if self.content == "fixed":
            return Text(text=_NONSENSE, count=self.queries, offset=self.offset)
        suffix = self.queries - self.prefix
        return Ends(prefix=self.prefix, suffix=suffix, offset=self.offset)

    def score(self, view: View) -> Tensor:
        (part,) = view[self.probe]
        received = torch.stack([rows.sum(dim=1) for rows in probe_attention(view, part)]).sum(dim=0)
        pooled = max_pool1d(received, self.kernel, stride=1, padding=self.kernel // 2)
        return group_mean(pooled, view.kv_heads)
