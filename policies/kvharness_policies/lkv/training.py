"""Self-distillation: gates that change the model's answers least."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvharness.training import Point, read_gated
from kvharness_policies.lkv.network import Network, Shape
from kvharness_policies.lkv.soft_top_k import soft_top_k

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from kvharness.training import Prefilled, Runtime

    Progress = Callable[[Sequence[int]], Iterable[int]]

#: What the default contract protects; the gates of these tokens stay open.
SINKS, RECENTS = 4, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How LKV is trained.

    Each step takes one sample at a retention drawn log-uniformly from ``least`` to ``most``, so
    that one training serves all. The temperature of the token gates falls from ``warm`` to
    ``cold`` as a cosine, while the weight of their indecision rises to ``binary``.
    """

    steps: int = 500
    token_rate: float = 1e-3
    budget_rate: float = 1e-2
    least: float = 0.05
    most: float = 0.5
    warm: float = 1.0
    cold: float = 0.05
    binary: float = 0.1
    clip: float = 1.0
    interval: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A context read once, and what the full cache makes of the tokens after it.

    Attributes:
        context: its keys and values.
        lead: tokens read before the scored ones; at least one.
        answer: the scored tokens.
        teacher: log-probabilities of the full cache, float16 ``[answer, vocabulary]``.
        held_out: only measured on.
    """

    context: Prefilled
    lead: tuple[int, ...]
    answer: tuple[int, ...]
    teacher: Tensor
    held_out: bool


def answer_logprobs(
    runtime: Runtime,
    context: Prefilled,
    lead: tuple[int, ...],
    answer: tuple[int, ...],
    gates: Tensor | None,
) -> Tensor:
    """Log-probabilities ``[answer, vocabulary]`` at each token of the answer."""
    logits = read_gated(runtime, context, (*lead, *answer[:-1]), gates)
    return logits[len(lead) - 1 :].log_softmax(dim=-1)


def gates_of(
    network: Network, context: Prefilled, *, retention: float, temperature: float
) -> Tensor:
    """Gates of all context entries, ``[layers, K, n]``: 1 on protected tokens."""
    keys, values = stacked(context)
    tokens = keys.shape[2]
    inside = slice(SINKS, tokens - RECENTS)
    free = tokens - SINKS - RECENTS
    retained = max(0.0, (retention * tokens - SINKS - RECENTS) / free)
    scores = network.scores(keys, values)[..., inside]
    opened = soft_top_k(scores, network.shares(retained) * free, temperature)
    gates = torch.ones(keys.shape[:3], device=keys.device)
    return torch.cat((gates[..., :SINKS], opened, gates[..., tokens - RECENTS :]), dim=-1)


def stacked(context: Prefilled) -> tuple[Tensor, Tensor]:
    """Keys and values of the compressible layers, ``[layers, K, n, d]`` each."""
    layers = [context.layers[index] for index in sorted(context.layers)]
    return (
        torch.stack([layer.keys for layer in layers]),
        torch.stack([layer.values for layer in layers]),
    )


class Training:
    """One seed's optimizer at work on the gates; the model itself stays as it is.

    Args:
        runtime: its parameters are frozen.
        samples: to train on, and held out.
        network: what is trained.
        recipe: how.
        seed: of the order of samples and of their retentions.
    """

    def __init__(
        self,
        runtime: Runtime,
        samples: Sequence[Sample],
        network: Network,
        recipe: Recipe,
        *,
        seed: int,
    ) -> None:
        self.network = network
        self._runtime = runtime
        self._recipe = recipe
        self._seen = [sample for sample in samples if not sample.held_out]
        self._held_out = [sample for sample in samples if sample.held_out]
        self._rng = torch.Generator().manual_seed(seed)
        budget = [network.homes, *network.mix.parameters(), *network.rank.parameters()]
        tokens = [network.widen, network.shift, network.narrow]
        self._rates = [recipe.budget_rate, recipe.token_rate]
        self._optimizer = torch.optim.AdamW(
            [{"params": budget}, {"params": tokens}], weight_decay=0.0
        )
        for parameter in runtime.model.parameters():
            parameter.requires_grad_(False)

    def step(self, number: int) -> float:
        """One sample; its divergence in nats a token."""
        recipe, done = self._recipe, number / self._recipe.steps
        falling = 0.5 + 0.5 * math.cos(math.pi * done)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * falling
        sample = self._seen[int(torch.randint(len(self._seen), (), generator=self._rng))]
        gates = gates_of(
            self.network,
            sample.context,
            retention=self._retention(),
            temperature=recipe.cold + (recipe.warm - recipe.cold) * falling,
        )
        divergence = divergence_of(self._runtime, sample, gates)
        undecided = (4 * gates * (1 - gates)).mean()
        self._optimizer.zero_grad()
        (divergence + recipe.binary * done * undecided).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        self._optimizer.step()
        return float(divergence.detach())

    def _retention(self) -> float:
        span = math.log(self._recipe.most / self._recipe.least)
        return self._recipe.least * math.exp(span * float(torch.rand((), generator=self._rng)))

    @torch.no_grad()
    def held_out(self) -> float:
        """Mean divergence on held-out samples at 10 and 25 %, with gates as cold as they get."""
        found = [
            float(divergence_of(self._runtime, sample, gates))
            for sample in self._held_out
            for kept in (0.1, 0.25)
            for gates in [
                gates_of(
                    self.network,
                    sample.context,
                    retention=kept,
                    temperature=self._recipe.cold,
                )
            ]
        ]
        return sum(found) / len(found)

    def run(self, *, progress: Progress, say: Callable[[str], None]) -> tuple[Point, ...]:
        """Every step; the curves."""
        curves: list[Point] = []
        recent: list[float] = []
        start = time.perf_counter()
        for number in progress(range(1, self._recipe.steps + 1)):
            recent.append(self.step(number))
            if number % self._recipe.interval and number != self._recipe.steps:
                continue
            point = Point(
                step=number,
                train=sum(recent) / len(recent),
                held_out=self.held_out(),
                seconds=time.perf_counter() - start,
            )
            curves.append(point)
            recent.clear()
            say(f"step {number}: KL {point.train:.3f}, held out {point.held_out:.3f} nats a token")
        return tuple(curves)


def new_network(samples: Sequence[Sample], shape: Shape, *, seed: int) -> Network:
    """Untrained weights, with the moments of keys and values of the samples that are trained on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(shape)
    seen = [sample for sample in samples if not sample.held_out][:16]
    both = torch.stack([torch.cat(stacked(s.context), dim=-1).float().cpu() for s in seen])
    network.mean.copy_(both.mean(dim=(0, 3))[:, :, None])
    network.deviation.copy_(both.std(dim=(0, 3))[:, :, None].clamp(min=1e-3))
    return network


def divergence_of(runtime: Runtime, sample: Sample, gates: Tensor) -> Tensor:
    """Mean KL from the full cache to the gated one, in nats a token."""
    student = answer_logprobs(runtime, sample.context, sample.lead, sample.answer, gates)
    teacher = sample.teacher.float()
    return (teacher.exp() * (teacher - student)).sum(dim=-1).mean()
