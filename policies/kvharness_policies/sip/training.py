"""Training one seed of the scorer on a collection."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from kvharness.training import Point
from kvharness_policies.sip.label import Loss, loss, top_labels
from kvharness_policies.sip.network import Network, new_network
from kvharness_policies.sip.scorer import Heads, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Generator, Tensor

    from kvharness_policies.sip.collection import Collection, Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a scorer is trained; the same for every seed.

    A step takes ``heads`` KV heads of each of ``windows`` windows. The learning rate rises over
    ``warmup`` steps and falls as a cosine. Every ``interval`` steps the curves get a point, from
    ``checked`` held-out windows. ``mixed`` multiplies matrices in bfloat16: 2.2 times as fast at
    the published size on a CPU with AMX, a quarter faster at the small one.
    """

    steps: int = 450
    windows: int = 2
    heads: int = 9
    rate: float = 1e-3
    warmup: int = 50
    decay: float = 0.01
    clip: float = 1.0
    interval: int = 75
    checked: int = 8
    mixed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A scorer with its curves."""

    scorer: Network
    curves: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a training tells what it does: ``progress`` wraps the steps, ``say`` prints a line."""

    progress: Callable[[Sequence[int]], Iterable[int]]
    say: Callable[[str], None]


def train(
    collection: Collection,
    shape: Shape,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    watch: Watch,
) -> Trained:
    """Train a scorer; seeds differ in initial weights and in the order of the windows."""
    # Dropout draws from torch's own generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scorer = new_network(shape)
        mean, deviation = collection.moments()
        scorer.mean.copy_(mean)
        scorer.deviation.copy_(deviation)
        curves = _run(scorer.to(device), collection, recipe, seed=seed, watch=watch)
    return Trained(scorer=scorer.eval().cpu(), curves=curves)


def _run(
    scorer: Network, collection: Collection, recipe: Recipe, *, seed: int, watch: Watch
) -> tuple[Point, ...]:
    rng = torch.Generator().manual_seed(seed)
    device = scorer.mean.device
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    numbers = collection.numbers(held_out=False)
    curves: list[Point] = []
    recent: list[float] = []
    start = time.perf_counter()
    for step in watch.progress(range(1, recipe.steps + 1)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * _schedule(step, recipe)
        batch = _batch(collection, numbers, recipe, rng, device)
        recent.append(_step(scorer, optimizer, batch, recipe, rng).bce.item())
        if step % recipe.interval and step != recipe.steps:
            continue
        point = Point(
            step=step,
            train=sum(recent) / len(recent),
            held_out=evaluate(scorer, collection, checked=recipe.checked, device=device),
            seconds=time.perf_counter() - start,
        )
        curves.append(point)
        recent.clear()
        watch.say(f"step {step}: loss {point.train:.4f}, held out {point.held_out:.4f} nats")
    return tuple(curves)


def _schedule(step: int, recipe: Recipe) -> float:
    if step <= recipe.warmup:
        return step / recipe.warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - recipe.warmup) / (recipe.steps - recipe.warmup))


def _step(
    scorer: Network,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Heads, Tensor],
    recipe: Recipe,
    rng: Generator,
) -> Loss:
    heads, labels = batch
    with torch.autocast(labels.device.type, dtype=torch.bfloat16, enabled=recipe.mixed):
        found = loss(scorer(heads), labels, rng)
    optimizer.zero_grad()
    found.total.backward()
    torch.nn.utils.clip_grad_norm_(scorer.parameters(), recipe.clip)
    optimizer.step()
    return found


def _batch(
    collection: Collection,
    numbers: Sequence[int],
    recipe: Recipe,
    rng: Generator,
    device: torch.device,
) -> tuple[Heads, Tensor]:
    drawn = torch.randint(len(numbers), (recipe.windows,), generator=rng).tolist()
    parts = []
    for index in drawn:
        stored, every = every_head(collection.read(numbers[index]))
        parts.append((stored, torch.randperm(len(every), generator=rng)[: recipe.heads]))
    return batch_of(parts, device)


def every_head(stored: Stored) -> tuple[Stored, Tensor]:
    """A window with the numbers of all of its stored heads."""
    return stored, torch.arange(stored.keys.shape[0] * stored.keys.shape[1])


def batch_of(parts: Sequence[tuple[Stored, Tensor]], device: torch.device) -> tuple[Heads, Tensor]:
    """Some heads of some windows, with their labels bool ``[B, n, 4]``.

    Args:
        parts: windows, each with which of its ``L * K`` heads to take.
        device: where they go.
    """
    kv_heads = parts[0][0].keys.shape[1]
    columns: dict[str, list[Tensor]] = {"keys": [], "values": [], "prefill": [], "attention": []}
    layer, head = [], []
    for stored, chosen in parts:
        for name, column in columns.items():
            column.append(getattr(stored, name).flatten(0, 1)[chosen])
        layer.append(stored.layers[chosen // kv_heads])
        head.append(chosen % kv_heads)
    tensors = {name: torch.cat(column).to(device) for name, column in columns.items()}
    attention = tensors.pop("attention")
    heads = Heads(**tensors, layer=torch.cat(layer).to(device), head=torch.cat(head).to(device))
    return heads, top_labels(attention).transpose(1, 2)


@torch.no_grad()
def evaluate(
    scorer: Network, collection: Collection, *, checked: int, device: torch.device
) -> float:
    """Mean cross-entropy in nats over all stored heads of the first held-out windows."""
    scorer.eval()
    losses = []
    for number in collection.numbers(held_out=True)[:checked]:
        heads, labels = batch_of([every_head(collection.read(number))], device)
        important = scorer(heads).important
        losses.append(binary_cross_entropy_with_logits(important, labels.float()).item())
    scorer.train()
    return sum(losses) / len(losses)
