"""What becomes of a policy's choice when a model reads the evicted cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.contract import Protection
from kvharness.engine.decode import Prompt
from kvharness.errors import ModelProblem
from kvharness.model.evicted_cache import Kept
from kvharness.policy.view import Positions
from kvharness.testing.examples import MODELLED, examples
from kvharness.testing.letters import VOCABULARY
from kvharness.testing.mistake import Mistake, expect
from kvharness.testing.model import MODEL_SHAPE, TinyModel
from kvharness.testing.reading import copied, read_as_is
from kvharness.testing.reads import OBSERVING, noted
from kvharness.testing.subject import as_given, learns, ready_on

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hypothesis.strategies import SearchStrategy
    from torch import Tensor

    from kvharness.model.prefilled import Prefilled
    from kvharness.policy.interface import Policy, ScoreFunction
    from kvharness.policy.observation.base import Observation
    from kvharness.policy.trace import Trace
    from kvharness.testing.reading import Reading

#: Log-probabilities in float32; measured differences stay below 1e-4 nats.
_TOLERANCE = 1e-3
#: Query heads and KV heads of the tiny models: GQA, MHA, MQA.
_HEADS = ((4, 2), (4, 4), (2, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A context of random tokens, two prompts after it, and a contract."""

    heads: int
    kv_heads: int
    tokens: int
    budget: int
    sinks: int
    recents: int
    seed: int

    def ids(self, count: int, salt: int) -> tuple[int, ...]:
        generator = torch.Generator().manual_seed(10 * self.seed + salt)
        return tuple(torch.randint(VOCABULARY, (count,), generator=generator).tolist())

    @property
    def context(self) -> tuple[int, ...]:
        return self.ids(self.tokens, 0)

    @property
    def prompts(self) -> list[Prompt]:
        return [
            Prompt(lead=self.ids(3, 1), answer=self.ids(2, 2)),
            Prompt(lead=self.ids(1, 3), answer=self.ids(4, 4)),
        ]

    @property
    def protection(self) -> Protection:
        return Protection(sinks=self.sinks, recents=self.recents).fit(self.budget)


@st.composite
def scenes(draw: st.DrawFn, *, heads: SearchStrategy[tuple[int, int]]) -> Scene:
    """Contexts of 2 to 40 tokens with a budget of at least one."""
    tokens = draw(st.integers(2, 40))
    budget = draw(st.integers(1, tokens))
    query_heads, kv_heads = draw(heads)
    return Scene(
        heads=query_heads,
        kv_heads=kv_heads,
        tokens=tokens,
        budget=budget,
        sinks=draw(st.integers(0, min(4, budget))),
        recents=draw(st.integers(0, 6)),
        seed=draw(st.integers(0, 99)),
    )


class Stage:
    """A policy on tiny models, made ready for each once."""

    def __init__(self, given: Policy | ScoreFunction) -> None:
        self.policy = as_given(given)
        self.heads = st.sampled_from(_HEADS[:1] if learns(self.policy) else _HEADS)
        self._ready: dict[tuple[int, int], tuple[Policy, TinyModel]] = {}

    def _noted(self, _: Observation[Any]) -> AbstractContextManager[None]:
        return noted(self.policy, OBSERVING)

    def on(self, scene: Scene) -> Performance:
        """The policy and the model for a scene, with the context read.

        Raises:
            Mistake: what the policy needs cannot be observed.
        """
        key = (scene.heads, scene.kv_heads)
        if key not in self._ready:
            shape = replace(MODEL_SHAPE, heads=scene.heads, kv_heads=scene.kv_heads)
            self._ready[key] = ready_on(self.policy, TinyModel.of(shape))
        policy, model = self._ready[key]
        try:
            prefilled, trace = model.prefill(
                scene.context, policy.needs, scene.prompts, guard=self._noted
            )
        except ModelProblem as problem:
            raise Mistake(str(problem)) from problem
        return Performance(scene, copied(policy), model, prefilled, trace)


@dataclass(frozen=True)
class Performance:
    """One policy object on one context; `read` may be called for several budgets."""

    scene: Scene
    policy: Policy
    model: TinyModel
    prefilled: Prefilled
    trace: Trace

    def read(self, budget: int) -> Reading:
        scene = replace(self.scene, budget=budget)
        return read_as_is(self.policy, self.trace, budget, scene.protection)

    def kept(self, mask: Tensor) -> Kept:
        return Kept(mask=mask, positions=self.policy.positions)

    def evicted(self, *masks: Tensor) -> list[Tensor]:
        cells = [self.kept(mask) for mask in masks]
        return self.model.evicted(self.prefilled, cells, self.scene.prompts)


def _distance(one: Tensor, two: Tensor) -> float:
    apart = float((one - two).abs().max())
    return apart if apart == apart else float("inf")  # noqa: PLR0124 - NaN


def check_full_retention_is_identity(
    policy: Policy | ScoreFunction, *, count: int = MODELLED
) -> None:
    """With a budget of all tokens the model answers as transformers does without any policy.

    Raises:
        Mistake: log-probabilities differ, or something is evicted.
    """
    stage = Stage(policy)

    @examples(count)
    @given(scene=scenes(heads=stage.heads))
    def holds(scene: Scene) -> None:
        played = stage.on(scene)
        mask = played.read(scene.tokens).mask
        if mask is None:
            return
        evicted = int((~mask).sum())
        expect(not evicted, f"{evicted} entries are evicted at a budget of all {scene.tokens}")
        apart = _distance(
            played.evicted(mask)[0], played.model.in_full(scene.context, scene.prompts)
        )
        expect(
            apart < _TOLERANCE,
            f"with nothing evicted, answers are {apart:.3g} nats from those without a policy; "
            f"leave the model as ready(model, seed) and observing(reading) get it",
        )

    holds()


def check_masked_equals_evicted(policy: Policy | ScoreFunction, *, count: int = MODELLED) -> None:
    """Reading the evicted cache gives the answers of the full cache under the keep mask.

    Raises:
        Mistake: log-probabilities differ, or compact positions and unequal budgets meet.
    """
    stage = Stage(policy)

    @examples(count)
    @given(scene=scenes(heads=stage.heads))
    def holds(scene: Scene) -> None:
        played = stage.on(scene)
        mask = played.read(scene.budget).mask
        if mask is None:
            return
        _expect_movable(played.kept(mask))
        masked = played.model.masked(played.prefilled, played.kept(mask), scene.prompts)
        apart = _distance(played.evicted(mask)[0], masked)
        expect(
            apart < _TOLERANCE,
            f"answers from the evicted cache are {apart:.3g} nats from those under the mask",
        )

    holds()


def _expect_movable(kept: Kept) -> None:
    counts = kept.mask.sum(dim=-1)
    if kept.positions is Positions.COMPACT and int(counts.min()) != int(counts.max()):
        layer = int((counts != counts[0, 0]).any(dim=1).nonzero()[0])
        raise Mistake(
            f"heads keep {counts[layer].tolist()} entries in layer {layer} with compact positions, "
            f"which need equal budgets in all heads and layers; use Positions.ORIGINAL"
        )


def check_cells_independent(policy: Policy | ScoreFunction, *, count: int = MODELLED) -> None:
    """A cell answers the same alone and in a batch with other retentions and other policies.

    Raises:
        Mistake: a mask changed after it was returned, or log-probabilities differ.
    """
    stage = Stage(policy)

    @examples(count)
    @given(scene=scenes(heads=stage.heads), strangers=st.integers(0, 3))
    def holds(scene: Scene, strangers: int) -> None:
        played = stage.on(scene)
        budgets = sorted({scene.budget, max(scene.sinks, scene.tokens // 2), scene.tokens})
        readings = [played.read(budget) for budget in budgets]
        masks = [reading.mask for reading in readings if reading.mask is not None]
        for budget, reading in zip(budgets, readings, strict=True):
            _expect_still(budget, reading)
        others = [_stranger(scene, number, masks[0]) for number in range(strangers) if masks]
        cells = others + [played.kept(mask) for mask in masks]
        beside = played.model.evicted(played.prefilled, cells, scene.prompts) if masks else []
        for mask, answers in zip(masks, beside[len(others) :], strict=True):
            apart = _distance(played.evicted(mask)[0], answers)
            expect(
                apart < _TOLERANCE,
                f"a cell of {int(mask.sum())} entries answers {apart:.3g} nats differently beside "
                f"{len(cells) - 1} others",
            )

    holds()


def _expect_still(budget: int, reading: Reading) -> None:
    if reading.mask is not None and reading.given is not None:
        expect(
            torch.equal(reading.mask, reading.given),
            f"the mask of budget {budget} changed when the policy selected for another budget; "
            f"return a new tensor from select each time",
        )


def _stranger(scene: Scene, number: int, like: Tensor) -> Kept:
    """Another policy's cell: other tokens, as many as this one or random numbers of them."""
    generator = torch.Generator().manual_seed(100 * scene.seed + number)
    if number % 2:
        return Kept(mask=torch.rand(like.shape, generator=generator) < 0.5)
    return Kept(mask=like[..., torch.randperm(like.shape[-1], generator=generator)])
