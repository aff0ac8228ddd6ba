"""LKV as a policy, and its budgets under any other policy's scores."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kvharness import Capabilities, Policy, Wrapper, exact_budgets
from kvharness.training import find_checkpoint
from kvharness_policies.lkv.network import Network, Shape

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice, LoadedModel, ModelSource, View
    from kvharness.training import Checkpoint

SHIPPED = Path(__file__).parents[1] / "weights"
RANDOM = "random"


class Budgets(StrEnum):
    """How entries are shared among heads."""

    LEARNED = "learned"
    UNIFORM = "uniform"
    SHUFFLED = "shuffled"


@dataclass(frozen=True)
class LKV(Policy):
    """LKV (arXiv 2605.06676): budgets of heads and scores of tokens, learned end to end.

    Score, ``[K, n]``: ``s_lhj = MLP_lh([k_j; v_j])`` of keys and values standardised by head, then
    standardised over the tokens; no query is seen. Budgets: ``k_lh = p + beta_lh (n - p)`` with
    ``p`` protected tokens and shares ``beta`` from one soft top-k of ``MLP(e_lh)`` over all heads
    of all layers, so that entries move between layers; rounded by largest remainders to the exact
    total. Trained by distillation from the full cache through soft top-k gates.

    Args:
        weights: a folder of `kvharness train lkv --out`; ``"shipped"``; or ``"random"``.
        budgets: ``"learned"``; ``"uniform"``, which leaves the scores (LKV-T); or ``"shuffled"``,
            the learned budgets on the wrong heads: the control of the claim that they matter.
        training: which seed's weights; the same for all seeds of a run.

    Source: the abstract, and second-hand notes on the paper: a global soft top-k over heads, token
    scores from keys and values, self-distillation from the frozen model, budgets that are fixed
    after training. The operator, sizes, temperatures, data and the rates are ours.
    Not verified: any figure of the paper.
    Budgets are not declared to nest: largest remainders may take an entry from a head as the total
    grows.
    """

    capabilities = Capabilities(head_wise=True, nested=False)

    weights: str = "shipped"
    budgets: str = Budgets.LEARNED
    training: int = 0

    def __post_init__(self) -> None:
        _check(self.budgets)

    def checkpoint(self, source: ModelSource, seed: int) -> str:
        del seed
        return _digest(self.weights, source, self.training)

    def ready(self, model: LoadedModel, seed: int) -> LearnedLKV:
        del seed
        return LearnedLKV(
            weights=self.weights,
            budgets=self.budgets,
            training=self.training,
            network=_network(self.weights, model, self.training),
        )

    def untrained(self) -> LKV:
        return LKV(weights=RANDOM, budgets=self.budgets, training=self.training)


@dataclass(frozen=True)
class LearnedLKV(LKV):
    """LKV with its weights."""

    network: Network = field(kw_only=True, repr=False, compare=False)

    def score(self, view: View) -> Tensor:
        with torch.no_grad():
            return self.network.layer_scores(view.layer, view.keys, view.values)

    def allocate(self, choice: Choice) -> Tensor:
        return head_budgets(self.network, self.budgets, choice)


@dataclass(frozen=True)
class LKVBudgets(Wrapper):
    """LKV-H: the learned budgets of LKV under another policy's scores, ``lkv-h(snapkv)``.

    Everything but the budgets is the wrapped policy's.

    Args:
        scorer: whose scores rank the tokens of each head.
        weights: as of `LKV`.
        budgets: as of `LKV`; ``"shuffled"`` is the control.
        training: as of `LKV`.

    Source: the ablation of LKV's abstract, learned budgets against learned scores.
    """

    own_capabilities = Capabilities(head_wise=True, nested=False)

    weights: str = "shipped"
    budgets: str = Budgets.LEARNED
    training: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.budgets)

    def checkpoint(self, source: ModelSource, seed: int) -> str:
        return _digest(self.weights, source, self.training) + self.scorer.checkpoint(source, seed)

    def ready(self, model: LoadedModel, seed: int) -> LearnedLKVBudgets:
        return LearnedLKVBudgets(
            self.scorer.ready(model, seed),
            weights=self.weights,
            budgets=self.budgets,
            training=self.training,
            network=_network(self.weights, model, self.training),
        )

    def untrained(self) -> LKVBudgets:
        return replace(self, scorer=self.scorer.untrained(), weights=RANDOM)


@dataclass(frozen=True)
class LearnedLKVBudgets(LKVBudgets):
    """LKV-H with its weights."""

    network: Network = field(kw_only=True, repr=False, compare=False)

    def allocate(self, choice: Choice) -> Tensor:
        return head_budgets(self.network, self.budgets, choice)


def head_budgets(network: Network, how: str, choice: Choice) -> Tensor:
    """Exact budgets ``[layers, K]`` from learned shares."""
    layers, heads, tokens = choice.scores.shape
    budget, kept = choice.budget, int(choice.protected.sum())
    shares = torch.full((layers, heads), 1.0)
    if how != Budgets.UNIFORM and tokens > kept:
        with torch.no_grad():
            shares = network.shares((budget - kept) / (tokens - kept)).cpu()
    if how == Budgets.SHUFFLED:
        order = torch.randperm(shares.numel(), generator=torch.Generator().manual_seed(0))
        shares = shares.flatten()[order].view(layers, heads)
    return exact_budgets(
        kept + shares * (tokens - kept), total=budget * layers * heads, low=kept, high=tokens
    )


def shape_of(model: LoadedModel) -> Shape:
    """Sizes of the networks for the layers of a model that are compressed."""
    config = model.module.config.get_text_config()
    heads = config.num_attention_heads
    return Shape(
        layers=len(model.compressed),
        kv_heads=config.num_key_value_heads or heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
    )


def _check(budgets: str) -> None:
    if budgets not in set(Budgets):
        raise ValueError(f"budgets={budgets!r}: expected one of {', '.join(Budgets)}")


def _find(weights: str, source: ModelSource, training: int) -> Checkpoint:
    root = SHIPPED if weights == "shipped" else Path(weights).expanduser()
    return find_checkpoint([root], policy="lkv", variant="small", source=source, seed=training)


def _digest(weights: str, source: ModelSource, training: int) -> str:
    return RANDOM if weights == RANDOM else _find(weights, source, training).digest


def _network(weights: str, model: LoadedModel, training: int) -> Network:
    if weights == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training)
            network = Network(shape_of(model))
            # At first all heads share alike; a control must not.
            torch.nn.init.normal_(network.rank.weight)
    else:
        found = _find(weights, model.source, training)
        network = found.network(lambda made: Network(Shape(**made["shape"])))
    return network.eval().to(model.module.device)
