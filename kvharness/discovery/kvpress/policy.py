"""A press as a policy: it scores, allocates and selects at once, so all three stages ask it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kvharness.discovery.kvpress.run import Attention, Run
from kvharness.errors import UsageProblem
from kvharness.policy.interface import Policy
from kvharness.policy.view import Capabilities, Needs, Positions

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.policy.interface import LoadedModel
    from kvharness.policy.trace import Trace

#: More than any context.
_ALL = 1 << 30


@dataclass(frozen=True)
class PressPolicy(Policy):
    """A press of NVIDIA/kvpress on the shared prefill.

    It keeps what kvpress would keep after a prefill of its own, at the compression ratio that
    gives the budget exactly; where none does, the cell fails. Where the contract protects sinks
    or recents, of which a press knows nothing, these are kept first and the rest of the budget
    goes to the press's highest scores; a press that does more than rank tokens is refused there.

    Args:
        press: any object with the interface of ``kvpress.BasePress``.
        ranks: whether it keeps its highest scores, each head for itself, and does nothing else.
        attends: whether it must be given attention weights, ``[H, n, n]`` floats a layer.
        compact: whether kept tokens move together, as under ``KeyRerotationPress``.
    """

    # What a press does at another ratio, or with its own draws, is its own affair.
    capabilities = Capabilities(deterministic=False, nested=False, head_wise=True)

    press: Any
    ranks: bool
    attends: bool = False
    compact: bool = False

    def __post_init__(self) -> None:
        # They follow from the press, so they are no fields.
        needs = Needs(hidden_states=True, queries=_ALL if self.attends else 0)
        object.__setattr__(self, "needs", needs)
        object.__setattr__(
            self, "positions", Positions.COMPACT if self.compact else Positions.ORIGINAL
        )

    def prepare(self, model: LoadedModel, seed: int) -> None:
        del seed
        press = copy.deepcopy(self.press)
        press.post_init_from_model(model.module)
        object.__setattr__(self, "_ready", (press, Attention.of(model.module)))

    def informed(self, trace: Trace) -> Policy:
        press, attention = self._ready  # type: ignore[attr-defined]
        other = copy.copy(self)
        object.__setattr__(other, "_run", Run(press, attention, trace))
        return other

    def score_all(self, trace: Trace) -> Tensor:
        """Zeros: a press's scores depend on the budget, which is known to `select` only."""
        return torch.zeros(len(trace.layers), trace.kv_heads, trace.tokens)

    def allocate(self, scores: Tensor, budget: int, protected: Tensor) -> Tensor:
        if bool(protected.any()):
            self._expect_ranking()
            return super().allocate(scores, budget, protected)
        return self._kept(budget).sum(dim=-1)

    def select(self, scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        budget = int(budgets.sum()) // budgets.numel()
        if not bool(protected.any()):
            return self._kept(budget)
        run: Run = self._run  # type: ignore[attr-defined]
        return super().select(run.scores(budget), budgets, protected.to(scores.device))

    def _kept(self, budget: int) -> Tensor:
        run: Run = self._run  # type: ignore[attr-defined]
        return run.kept(budget)

    def _expect_ranking(self) -> None:
        if not self.ranks:
            raise UsageProblem(
                f"{type(self.press).__name__} does more than rank tokens and knows nothing of the "
                f"contract's sinks and recents; run it with --kv-sinks=0 --kv-recents=0"
            )
