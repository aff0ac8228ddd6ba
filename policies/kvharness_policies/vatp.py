"""Attention times the norm of the value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness import Policy, Protection
from kvharness_policies.h2o import H2O
from kvharness_policies.scissorhands import Scissorhands

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Observations, View


#: Whose scores, and what they need and protect; the official code's Scissorhands takes the mean.
_BASES: dict[str, Policy] = {"h2o": H2O(), "scissorhands": Scissorhands(record="mean")}


@dataclass(frozen=True)
class VATP(Policy):
    """VATP (arXiv 2406.12335): attention times the L1 norm of the value.

    Score: ``s[k, j] = (mean over h in group(k) of a[h, j]) * ||v[k, j]||_1``; ``a`` is the summed
    attention ``[H, n]`` of all queries (``base="h2o"``), or the mean of the last 400
    (``base="scissorhands"``). Protects the first ``sinks`` tokens, and the last ``b // 2`` or 10.

    Args:
        base: whose attention.
        sinks: tokens that are kept whatever their values, which are small there; 20 officially.
            0 is the ablation that the official code does not have: there the guard comes with the
            value norm, so that the published contrast mixes both.

    Source: the official repository. Deviations: the mean over the query group, as the official
    code is for MHA only; the guard is a protection and not a largest score; evicts once at the end
    of prefill, for real, where the official code masks.
    Not verified: the paper's text and tables.
    """

    base: str = "h2o"
    sinks: int = 20

    def __post_init__(self) -> None:
        if self.base not in _BASES:
            raise ValueError(f"base={self.base!r}: expected one of {', '.join(_BASES)}")
        if self.sinks < 0:
            raise ValueError(f"sinks={self.sinks}: expected 0 or more tokens")

    @property
    def needs(self) -> Observations:
        return _BASES[self.base].needs

    def score(self, view: View) -> Tensor:
        norms: Tensor = view.values.float().norm(p=1, dim=-1)
        return _BASES[self.base].score(view) * norms

    def protect(self, tokens: int, budget: int) -> Protection:
        recents = _BASES[self.base].protect(tokens, budget).recents
        return Protection(sinks=self.sinks, recents=recents)
