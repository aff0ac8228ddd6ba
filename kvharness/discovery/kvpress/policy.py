"""A press as a policy: it scores, allocates and selects at once, so all three stages ask it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from kvharness.discovery.kvpress.run import Attention, Run
from kvharness.errors import UsageProblem
from kvharness.policy.interface import Policy
from kvharness.policy.observation.base import Observation
from kvharness.policy.observation.standard import HiddenStates, Queries
from kvharness.policy.view import Capabilities, Positions

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.policy.choice import Choice
    from kvharness.policy.interface import LoadedModel
    from kvharness.policy.observation.base import Observations
    from kvharness.policy.view import View

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

    @property
    def needs(self) -> Observations:
        seen = frozenset[Observation[Any]]({HiddenStates()})
        return seen | {Queries(_ALL)} if self.attends else seen

    @property
    def positions(self) -> Positions:
        return Positions.COMPACT if self.compact else Positions.ORIGINAL

    def ready(self, model: LoadedModel, seed: int) -> ReadyPressPolicy:
        del seed
        press = copy.deepcopy(self.press)
        press.post_init_from_model(model.module)
        return ReadyPressPolicy(
            press=press,
            ranks=self.ranks,
            attends=self.attends,
            compact=self.compact,
            attention=Attention.of(model.module),
        )


@dataclass(frozen=True)
class ReadyPressPolicy(PressPolicy):
    """A press on one model."""

    attention: Attention = field(kw_only=True, repr=False, compare=False)

    def score(self, view: View) -> Tensor:
        """Zeros: a press's scores depend on the budget, which is known to `select` only."""
        return torch.zeros(view.kv_heads, view.tokens, device=view.keys.device)

    def allocate(self, choice: Choice) -> Tensor:
        if bool(choice.protected.any()):
            self._expect_ranking()
        # What ranks keeps equally many in each head, so that there is nothing to run for it.
        return super().allocate(choice) if self.ranks else self._kept(choice).sum(dim=-1)

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        if not bool(choice.protected.any()):
            return self._kept(choice)
        scores = self._run(choice).scores(choice.budget).to(choice.scores.device)
        return super().select(replace(choice, scores=scores), budgets)

    def _kept(self, choice: Choice) -> Tensor:
        return self._run(choice).kept(choice.budget)

    def _run(self, choice: Choice) -> Run:
        return Run(self.press, self.attention, choice.trace)

    def _expect_ranking(self) -> None:
        if not self.ranks:
            raise UsageProblem(
                f"{type(self.press).__name__} does more than rank tokens and knows nothing of the "
                f"contract's sinks and recents; run it with --kv-sinks=0 --kv-recents=0"
            )
