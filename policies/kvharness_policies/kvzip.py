"""What the model needs to repeat its context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness import (
    Capabilities,
    Policy,
    Protection,
    Repeat,
    Scope,
    probe_attention,
    shared_budgets,
)

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice, Probe, View


@dataclass(frozen=True)
class KVzip(Policy):
    """KVzip (arXiv 2505.23416): attention of the model as it is made to repeat the context.

    After prefill, for each chunk of the context the model reads a request to repeat it and the
    chunk itself, on top of the full cache (`Repeat`). Score of a token ``j`` of a chunk: ``s[k, j]
    = max over h in group(k) and i of P[h, i, j]``, ``i`` over all tokens of the chunk's probe;
    ``P`` is ``[H, m, s]``, softmax over the first ``sinks`` tokens, the chunk, and the probe's
    tokens up to ``i``; result ``[K, n]``. The first ``sinks`` tokens score 0 and are protected.
    Budgets: the entries beyond the protected ones go to the highest scores of the whole model, so
    heads and layers keep unequal numbers; ``b L K`` in all.

    Args:
        chunk: 2000 tokens, the official ones.
        sinks: 4, that of NVIDIA/kvpress. The official code protects the whole system prompt, and
            has that in each softmax in place of the sinks.

    Source: the official code (model/wrapper.py, attention/score.py). Deviations: softmax in
    float32 instead of the model's dtype; an exact number of entries instead of those above a
    threshold, which drops ties; a system prompt beyond the sinks is repeated and scored like the
    rest; recents are protected by the contract alone; for a base model without a chat template
    the request is worded as the harness words questions. Evicts once, as the official code.
    It costs about another prefill, which is counted in its seconds of selection, and memory for
    the queries of all tokens. A model that cannot copy cannot be asked: small ones may not.
    Not verified: the paper's tables.
    """

    capabilities = Capabilities(head_wise=True)

    chunk: int = 2000
    sinks: int = 4

    def __post_init__(self) -> None:
        for name, number, least in (("chunk", self.chunk, 1), ("sinks", self.sinks, 0)):
            if number < least:
                raise ValueError(f"{name}={number}: expected {least} or more tokens")

    @property
    def needs(self) -> frozenset[Probe]:
        return frozenset({self.probe})

    @property
    def probe(self) -> Probe:
        """The requests and chunks."""
        return Repeat(chunk=self.chunk, skip=self.sinks)

    def score(self, view: View) -> Tensor:
        scores = torch.zeros(view.kv_heads, view.tokens, device=view.keys.device)
        sinks = torch.arange(min(self.sinks, view.tokens), device=scores.device)
        for part in view[self.probe]:
            chunk = torch.arange(part.first, part.last, device=scores.device)
            best = scores[:, part.first : part.last]
            for rows in probe_attention(view, part, seen=torch.cat((sinks, chunk))):
                paid = rows[..., len(sinks) :].unflatten(0, (view.kv_heads, -1)).amax(dim=(1, 2))
                torch.maximum(best, paid, out=best)
        return scores

    def protect(self, tokens: int, budget: int) -> Protection:
        del tokens, budget
        return Protection(sinks=self.sinks, recents=0)

    def allocate(self, choice: Choice) -> Tensor:
        scores, budget, protected = choice.scores, choice.budget, choice.protected
        return shared_budgets(scores, budget, protected, scope=Scope.MODEL)
