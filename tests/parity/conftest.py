"""A context on the tiny model and on the embedded one, in float32."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import LoadedModel, Protection
from kvharness.discovery import registry
from kvharness.discovery.spec import PolicySpec
from kvharness.engine.select import keep_mask, score_tokens
from kvharness.engine.speed import trace_of
from kvharness.model.context_reading import prefill

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.model.loaded import Runtime


@dataclass(frozen=True)
class Stage:
    """A model with one context."""

    runtime: Runtime
    ids: list[int]

    def load(self, text: str) -> LoadedPolicy:
        (spec,) = PolicySpec.parse_list(text)
        loaded = registry.load(spec, registry.installed())
        model = LoadedModel(source=self.runtime.source, module=self.runtime.model)
        return replace(loaded, policy=loaded.policy.ready(model, 0))

    def trace(self, policy: Any) -> Any:
        prefilled, _ = prefill(self.runtime, self.ids, policy.needs)
        return trace_of(prefilled).for_policy(policy.needs, ("0", "item", "policy"))

    def kept(self, text: str, budget: int, *, recents: int = 0) -> tuple[Tensor, Tensor]:
        """Keep mask of a policy, and its scores, ``[layers, K, n]``."""
        policy = self.load(text).policy
        trace = self.trace(policy)
        protection = Protection(sinks=0, recents=recents)
        with torch.no_grad():
            mask = keep_mask(policy, trace, budget, protection, name=text)
            return mask, score_tokens(policy, trace, name="tested")


@pytest.fixture(scope="session")
def tiny(runtime: Runtime) -> Stage:
    generator = torch.Generator().manual_seed(0)
    return Stage(runtime, torch.randint(2, 1500, (200,), generator=generator).tolist())


@pytest.fixture(scope="session")
def embedded() -> Stage:
    from kvharness.items.drawing import Drawing
    from kvharness.items.needle import needle_items
    from kvharness.model.loaded import Runtime
    from kvharness.pretrained.find import DEFAULT_MODEL, find_model

    runtime = Runtime.load(find_model(DEFAULT_MODEL), device="cpu", dtype="float32")
    (item,) = needle_items(Drawing(encoder=runtime.encoder, context=512, seed=0, count=1))
    return Stage(runtime, list(item.context))


@pytest.fixture(params=["tiny", "embedded"])
def stage(request: pytest.FixtureRequest) -> Stage:
    made: Stage = request.getfixturevalue(request.param)
    return made
