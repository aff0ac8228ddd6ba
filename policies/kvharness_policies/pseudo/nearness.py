"""How near made-up queries are to true ones: where they stand against what they say.

The true queries are those of the text that really follows the context. Beside them stand the
queries of other tokens at the same positions, and of these and the same tokens at the context's
beginning; and, as a control, those of the context's last tokens, which SnapKV asks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.nn.functional import cosine_similarity

from kvharness import (
    Observation,
    Part,
    Probe,
    Queries,
    Trace,
    group_mean,
    probe_attention,
    window_attention,
)
from kvharness.training import prefill
from kvharness_policies.dapq import CONTENTS, DapQ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from kvharness import Material, View
    from kvharness.training import Runtime, Window

#: What the contract protects: no policy chooses there.
SINKS, RECENTS = 4, 16
BUDGETS = (16, 32, 64, 128, 256)
TRUE, LAST = "true", "last"
RIGHT, WRONG = "right", "wrong"
#: Contents and places in the order of tables; the true text at its own place is the standard.
KINDS = (
    *((content, RIGHT) for content in CONTENTS),
    *((content, WRONG) for content in (TRUE, *CONTENTS)),
    (LAST, LAST),
)


@dataclass(frozen=True, kw_only=True)
class Given(Probe):
    """Tokens as they are given: the true text, which no policy may ask for."""

    ids: tuple[int, ...]

    def parts(self, material: Material) -> list[Part]:
        return [Part(ids=self.ids, first=0, last=len(material.context))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearness:
    """One kind of queries against the true ones, on one passage.

    Attributes:
        passage: of the text.
        content: ``"true"``, of `CONTENTS`, or ``"last"``.
        place: ``"right"``, ``"wrong"``, or ``"last"``.
        cosine: of the queries after RoPE, one by one; mean over queries, heads and layers.
        recall: by budget, the share of the tokens most attended by the true queries that are
            among those most attended by these; mean over KV heads and layers.
    """

    passage: str
    content: str
    place: str
    cosine: float
    recall: dict[int, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        recall = {int(budget): share for budget, share in content["recall"].items()}
        return cls(**{**content, "recall": recall})


def measure(
    runtime: Runtime,
    windows: Sequence[Window],
    *,
    progress: Callable[[Sequence[Window]], Iterable[Window]],
) -> list[Nearness]:
    """Every kind on every window."""
    return [each for window in progress(windows) for each in _window(runtime, window)]


def first_windows(windows: Iterable[Window], *, most: int) -> list[Window]:
    """The first window of each of the first passages."""
    first: dict[str, Window] = {}
    for window in windows:
        first.setdefault(window.passage, window)
    return list(first.values())[:most]


def budgets(context: int) -> tuple[int, ...]:
    """Those that leave something of a context to choose."""
    return tuple(each for each in BUDGETS if each < context - SINKS - RECENTS)


def _window(runtime: Runtime, window: Window) -> Iterator[Nearness]:
    context, real = window.tokens[: window.context], window.tokens[window.context :]
    probes = _probes(real, len(context))
    needs = frozenset[Observation[Any]]({Queries(len(real)), *probes.values()})
    prefilled, _ = prefill(runtime, context, needs)
    prefilled.observing_seconds(needs)
    layers = tuple(prefilled.layers.values())
    positions = torch.arange(len(context), device=layers[0].keys.device)
    views = Trace(layers=layers, positions=positions).views
    standard = [_asked(view, probes[TRUE, RIGHT]) for view in views]
    for content, place in KINDS:
        probe = probes.get((content, place))
        asked = [_asked(view, probe) for view in views]
        yield _nearness(window.passage, content, place, asked, standard)


def _probes(real: tuple[int, ...], context: int) -> dict[tuple[str, str], Probe]:
    count = len(real)
    probes: dict[tuple[str, str], Probe] = {}
    for place, offset in ((RIGHT, 0), (WRONG, -context)):
        probes[TRUE, place] = Given(ids=real, offset=offset)
        for content in CONTENTS:
            policy = DapQ(queries=count, prefix=min(4, count), content=content, offset=offset)
            probes[content, place] = policy.probe
    return probes


def _asked(view: View, probe: Probe | None) -> tuple[Tensor, Tensor]:
    """Queries ``[H, a, d]`` and what they pay to each token, ``[K, n]``; None: the last ones."""
    if probe is None:
        assert view.queries is not None  # noqa: S101 - asked for
        return view.queries, group_mean(window_attention(view).sum(dim=1), view.kv_heads)
    (part,) = view.probed(probe)
    paid = torch.stack([rows.sum(dim=1) for rows in probe_attention(view, part)]).sum(dim=0)
    return part.queries, group_mean(paid, view.kv_heads)


def _nearness(
    passage: str,
    content: str,
    place: str,
    asked: Sequence[tuple[Tensor, Tensor]],
    standard: Sequence[tuple[Tensor, Tensor]],
) -> Nearness:
    pairs = list(zip(asked, standard, strict=True))
    cosines = [
        cosine_similarity(mine.float(), true.float(), dim=-1).mean()
        for (mine, _), (true, _) in pairs
    ]
    tokens = standard[0][1].shape[1]
    recall = {
        budget: float(torch.stack([recalled(m, t, budget) for (_, m), (_, t) in pairs]).mean())
        for budget in budgets(tokens)
    }
    cosine = float(torch.stack(cosines).mean())
    return Nearness(passage=passage, content=content, place=place, cosine=cosine, recall=recall)


def recalled(mine: Tensor, true: Tensor, budget: int) -> Tensor:
    """Share of the true best ``budget`` tokens among mine, ``[K, n]`` each to ``[K]``.

    Tokens that the contract protects are left out.
    """
    free = slice(SINKS, mine.shape[-1] - RECENTS)
    chosen = []
    for scores in (mine, true):
        best = scores[..., free].topk(budget, dim=-1).indices
        chosen.append(torch.zeros_like(scores[..., free], dtype=torch.bool).scatter(-1, best, True))
    return (chosen[0] & chosen[1]).sum(dim=-1) / budget
