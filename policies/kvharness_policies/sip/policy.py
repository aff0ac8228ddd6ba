"""SIP as a policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kvharness import ColumnSums, Policy
from kvharness.training import find_checkpoint
from kvharness_policies.column_sums import mean_received
from kvharness_policies.sip.features import Feature, parse_features
from kvharness_policies.sip.network import new_network, trained_network
from kvharness_policies.sip.scorer import DEFAULT_FEATURES, NOTEBOOK, PER_HEAD, Heads, Shape
from kvharness_policies.sip.variant import SMALL, options_of, variant_of

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Choice, LoadedModel, ModelSource, View
    from kvharness.training import Checkpoint
    from kvharness_policies.sip.network import Network

#: The weights that this distribution brings.
SHIPPED = Path(__file__).parents[1] / "weights"
RANDOM = "random"
SIZES: dict[str, dict[str, Any]] = {
    SMALL: {"width": 96, "blocks": 1},
    "1.7m": {"width": 256, "blocks": 2, "widening": 4},
}


@dataclass(frozen=True)
class SIP(Policy):
    """SIP (arXiv 2601.14279): a learned scorer that sees keys, values and positions, no queries.

    Score, ``[K, n]``: the logarithm of
    ``exp(-softplus(g) (n - 1 - j) / n) * sum_H softmax_H(c_jH / tau) sigmoid(a_jH)`` with
    horizons ``H`` of 1, 4, 16 and 64 future tokens. ``a`` and ``c`` come from
    ``z = LN(GELU(W [k; v] + P phi(j) + E_head))``, cross-attention to the last 32 tokens of the
    context, and a feed-forward layer. The label of a token is whether it is in the quarter of the
    context that the next ``H`` tokens of a real continuation attend to most.

    Args:
        weights: a folder of `kvharness train sip --out`; ``"shipped"``, for the embedded model;
            or ``"random"``, which never learned anything: a control.
        size: ``"small"`` (100 thousand weights) or ``"1.7m"``, the published size.
        features: what the scorer sees, some of ``position``, ``keys``, ``values`` and ``prefill``
            (the mean attention received) joined by ``+``, or ``all``; each choice is a training
            of its own. The shipped weights are of the default, and of ``position`` alone.
        mode: ``"per-head"``, or ``"notebook"``: the network of the author's repository, which sees
            the first layer alone and keeps one set of tokens for the whole model.

    The seed of a cell chooses the weights, so five seeds are five trainings.
    Source: the abstract, the first page and the author's repository. Deviations: the repository's
    notebook looks at layer 0 and keeps one set of tokens for the whole model (``mode``); here every
    head of every layer is scored. Its targets are softmaxed twice, its longer horizons never
    trained and padding counts as negatives; none of that is repeated, not in its mode either.
    Widths other than the published size, the learning rate and the weights of the ranking and
    confidence terms are ours.
    Not verified: the paper's figures, which its repository cannot produce.
    """

    weights: str = "shipped"
    size: str = SMALL
    features: str = DEFAULT_FEATURES
    mode: str = PER_HEAD

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"size={self.size!r}: expected one of {', '.join(SIZES)}")
        if self.mode not in {PER_HEAD, NOTEBOOK}:
            raise ValueError(f"mode={self.mode!r}: expected {PER_HEAD} or {NOTEBOOK}")
        variant_of(size=self.size, features=self.features, mode=self.mode)

    @property
    def needs(self) -> frozenset[ColumnSums]:
        return frozenset({ColumnSums()} if Feature.PREFILL in parse_features(self.features) else ())

    def checkpoint(self, source: ModelSource, seed: int) -> str:
        return RANDOM if self.weights == RANDOM else self._find(source, seed).digest

    def ready(self, model: LoadedModel, seed: int) -> LearnedSIP:
        network = self._network(model, seed).eval().to(model.module.device)
        kind = LearnedSIP if self.mode == PER_HEAD else NotebookSIP
        return kind(
            weights=self.weights,
            size=self.size,
            features=self.features,
            mode=self.mode,
            network=network,
        )

    def untrained(self) -> SIP:
        return replace(self, weights=RANDOM)

    def _network(self, model: LoadedModel, seed: int) -> Network:
        if self.weights == RANDOM:
            return _random(model, self, seed)
        return trained_network(self._find(model.source, seed))

    def _find(self, source: ModelSource, seed: int) -> Checkpoint:
        choice = {"size": self.size, "features": self.features, "mode": self.mode}
        root = SHIPPED if self.weights == "shipped" else Path(self.weights).expanduser()
        return find_checkpoint(
            [root],
            policy="sip",
            variant=variant_of(**choice),
            source=source,
            seed=seed,
            options=options_of(**choice),
        )


@dataclass(frozen=True)
class LearnedSIP(SIP):
    """SIP with its weights."""

    network: Network = field(kw_only=True, repr=False, compare=False)

    def score(self, view: View) -> Tensor:
        heads = torch.arange(view.kv_heads, device=view.keys.device)
        seen = Heads(
            keys=view.keys,
            values=view.values,
            prefill=mean_received(view) if self.needs else None,
            layer=torch.full_like(heads, view.layer),
            head=heads,
        )
        with torch.no_grad():
            score: Tensor = self.network(seen).score
        return score


class NotebookSIP(LearnedSIP):
    """The notebook's mode: the first layer alone decides, and all heads of all layers follow."""

    def score(self, view: View) -> Tensor:
        if view.layer == 0:
            shared = super().score(view).mean(dim=0)
        else:
            # Never looked at; it ties the heads, so that none of them gets more entries.
            tokens, device = view.tokens, view.keys.device
            shared = torch.arange(tokens, 0, -1, dtype=torch.float32, device=device)
        return shared.repeat(view.kv_heads, 1)

    def select(self, choice: Choice, budgets: Tensor) -> Tensor:
        tied = choice.scores[:1].expand_as(choice.scores)
        return super().select(replace(choice, scores=tied), budgets)


def shape_of(model: LoadedModel, size: str) -> Shape:
    """Sizes of a scorer for a model: all of its layers, sliding ones included."""
    config = model.module.config.get_text_config()
    heads = config.num_attention_heads
    return Shape(
        layers=config.num_hidden_layers,
        kv_heads=config.num_key_value_heads or heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        **SIZES[size],
    )


def _random(model: LoadedModel, policy: SIP, seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = shape_of(model, policy.size)
        return new_network(replace(shape, features=policy.features, mode=policy.mode))
