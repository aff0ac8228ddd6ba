"""How much a token's features say about its importance: bits, by a small network for each.

For a label ``Y`` and features ``X`` the cross-entropy of any predictor bounds what ``X`` knows:
``I(X; Y) >= H(Y) - CE``. The same network is trained for each set of features, on the passages
that scorers are trained on, and measured on the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from kvharness_policies.sip.features import ALL, parse_features
from kvharness_policies.sip.label import TOP
from kvharness_policies.sip.scorer import Scorer
from kvharness_policies.sip.training import batch_of, every_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Generator, Tensor

    from kvharness_policies.sip.collection import Collection
    from kvharness_policies.sip.scorer import Heads, Shape

#: The control: the network sees everything, but labels of other tokens.
PERMUTED = "permuted"
KNOWN = "position+prefill"
SETS = ("position", "keys", "values", "keys+values", "prefill", "position+keys+values", KNOWN, ALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How each probe is trained: the same for all sets of features."""

    steps: int = 500
    windows: int = 2
    heads: int = 12
    rate: float = 3e-3


def measure(
    collection: Collection,
    shape: Shape,
    recipe: Recipe,
    *,
    device: torch.device,
    progress: Callable[[Sequence[str]], Iterable[str]],
) -> dict[str, list[float]]:
    """Bits about the label of the longest horizon: for each set, one number a held-out passage."""
    found = {}
    for features in progress((*SETS, PERMUTED)):
        mixed = features == PERMUTED
        names = "+".join(parse_features(ALL if mixed else features))
        probe = _fit(
            collection,
            replace(shape, blocks=0, features=names),
            recipe,
            mixed=mixed,
            device=device,
        )
        found[features] = _bits(probe, collection, mixed=mixed, device=device)
    return found


def entropy() -> float:
    """Of the label itself, in bits."""
    return -TOP * math.log2(TOP) - (1 - TOP) * math.log2(1 - TOP)


def _fit(
    collection: Collection, shape: Shape, recipe: Recipe, *, mixed: bool, device: torch.device
) -> Scorer:
    rng = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = Scorer(shape)
    mean, deviation = collection.moments()
    probe.mean.copy_(mean)
    probe.deviation.copy_(deviation)
    probe.to(device)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=recipe.rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    numbers = collection.numbers(held_out=False)
    for _ in range(recipe.steps):
        drawn = torch.randint(len(numbers), (recipe.windows,), generator=rng).tolist()
        parts = [every_head(collection.read(numbers[index])) for index in drawn]
        some = [
            (stored, all_heads[torch.randperm(len(all_heads), generator=rng)[: recipe.heads]])
            for stored, all_heads in parts
        ]
        heads, labels = _labelled(batch_of(some, device), rng if mixed else None)
        optimizer.zero_grad()
        _loss(probe, heads, labels).backward()
        optimizer.step()
        falling.step()
    return probe.eval()


def _labelled(batch: tuple[Heads, Tensor], rng: Generator | None) -> tuple[Heads, Tensor]:
    """Labels of the longest horizon, bool ``[B, n]``; with ``rng`` those of other tokens."""
    heads, labels = batch
    last = labels[..., -1]
    if rng is None:
        return heads, last
    order = torch.randperm(last.shape[1], generator=rng).to(last.device)
    return heads, last[:, order]


def _loss(probe: Scorer, heads: Heads, labels: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(probe(heads).important[..., -1], labels.float())


@torch.no_grad()
def _bits(
    probe: Scorer, collection: Collection, *, mixed: bool, device: torch.device
) -> list[float]:
    rng = torch.Generator().manual_seed(1)
    bits = []
    for numbers in collection.passages(held_out=True).values():
        losses = []
        for number in numbers:
            batch = batch_of([every_head(collection.read(number))], device)
            heads, labels = _labelled(batch, rng if mixed else None)
            losses.append(float(_loss(probe, heads, labels)))
        bits.append(entropy() - sum(losses) / len(losses) / math.log(2))
    return bits
