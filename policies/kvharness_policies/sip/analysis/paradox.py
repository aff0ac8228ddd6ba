"""The attention paradox, measured: does what is important depend on what was evicted?

Importance is future attention, so it depends on the text that is generated, which depends on what
the cache keeps. The paper states this circle as a hypothesis. Here the importance of every context
token is taken three times, always with the whole cache in sight: on the real continuation (a), on
what the model writes from the full cache (b), and on what it writes from a compressed one (c).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

import torch

from kvharness import LoadedModel
from kvharness.training import continuations, observe_window, prefill, retained
from kvharness_policies.sip.label import TOP, top_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from kvharness.training import Runtime, Window
    from kvharness_policies.sip.policy import SIP

RETENTIONS = ("0.1", "0.25", "0.5", "0.75")
#: What the contract protects: no policy chooses there.
_SINKS, _RECENTS = 4, 16
#: Of the three texts; with less there is no importance to speak of.
_LEAST = 16
#: Two sets of this share agree so much by chance.
CHANCE = TOP / (2 - TOP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of two importances of the same context tokens; means over all heads.

    Attributes:
        passage: of the held-out text.
        pair: ``"reference"`` for a against b, or the retention for b against c.
        jaccard: of the quarters most attended.
        spearman: correlation of ranks.
        diverged: first token at which the two texts differ; None if they never do.
        by_token: Jaccard of the quarters most attended by each token of the two texts.
    """

    passage: str
    pair: str
    jaccard: float
    spearman: float
    diverged: int | None
    by_token: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        return cls(**{**content, "by_token": tuple(content["by_token"])})


REFERENCE = "reference"


def measure(
    runtime: Runtime,
    windows: Sequence[Window],
    policy: SIP,
    *,
    progress: Callable[[Sequence[Window]], Iterable[Window]],
) -> list[Agreement]:
    """On the first held-out window of each passage; leaves out those whose text ends at once."""
    ready = policy.ready(LoadedModel(source=runtime.source, module=runtime.model), 0)
    first: dict[str, Window] = {}
    for window in windows:
        if window.held_out:
            first.setdefault(window.passage, window)
    return [
        each for window in progress([*first.values()]) for each in _window(runtime, window, ready)
    ]


def _window(runtime: Runtime, window: Window, policy: SIP) -> list[Agreement]:
    real = window.tokens[window.context :]
    context, _ = prefill(runtime, window.tokens[: window.context])
    masks = [
        retained(context, policy, retention=Fraction(each), name="sip", seed=0)
        for each in RETENTIONS
    ]
    everything = torch.ones_like(masks[0])
    texts = [
        real,
        *continuations(runtime, context, [everything, *masks], real[0], tokens=len(real)),
    ]
    length = min(map(len, texts))
    if length < _LEAST:
        return []
    texts = [text[:length] for text in texts]
    a, b, *compressed = (_attention(runtime, window, text) for text in texts)
    pairs = [(REFERENCE, a, texts[0])]
    pairs += zip(RETENTIONS, compressed, texts[2:], strict=True)
    return [
        _agreement(window.passage, pair, (b, texts[1]), (other, text))
        for pair, other, text in pairs
    ]


def _attention(runtime: Runtime, window: Window, text: tuple[int, ...]) -> Tensor:
    """Of each token of a text on the tokens that policies choose among, ``[L, K, a, n]``."""
    read = replace(window, tokens=(*window.tokens[: window.context], *text))
    future = torch.stack([layer.future for layer in observe_window(runtime, read)])
    return future[..., _SINKS : window.context - _RECENTS].cpu()


def _agreement(
    passage: str,
    pair: str,
    one: tuple[Tensor, tuple[int, ...]],
    other: tuple[Tensor, tuple[int, ...]],
) -> Agreement:
    (mine, text), (theirs, words) = one, other
    apart = (n for n, (x, y) in enumerate(zip(text, words, strict=True)) if x != y)
    mean_mine, mean_theirs = mine.mean(dim=-2), theirs.mean(dim=-2)
    by_token = jaccard(mine, theirs).mean(dim=(0, 1))
    return Agreement(
        passage=passage,
        pair=pair,
        jaccard=float(jaccard(mean_mine, mean_theirs).mean()),
        spearman=float(spearman(mean_mine, mean_theirs).mean()),
        diverged=next(apart, None),
        by_token=tuple(round(float(value), 4) for value in by_token),
    )


def jaccard(one: Tensor, other: Tensor) -> Tensor:
    """Of the quarters with the most attention, along the last axis: ``[...]``."""
    mine, theirs = top_labels(one), top_labels(other)
    return (mine & theirs).sum(dim=-1) / (mine | theirs).sum(dim=-1)


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Correlation of ranks along the last axis; attention has no ties to speak of: ``[...]``."""
    ranks = torch.stack([each.argsort(dim=-1).argsort(dim=-1) for each in (one, other)]).double()
    centred = ranks - ranks.mean(dim=-1, keepdim=True)
    return (centred[0] * centred[1]).sum(dim=-1) / centred[0].square().sum(dim=-1)
