from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from kvharness.cell import Cell, Group
from kvharness.contract import retention_from_text
from kvharness.discovery.loaded import LoadedPolicy
from kvharness.discovery.spec import PolicySpec
from kvharness.engine.task import Task
from kvharness.policy.interface import Policy
from kvharness.pretrained.find import find_model
from kvharness.records.masks import read_mask
from kvharness.run.computation import Computation
from kvharness.run.items import Supply
from kvharness.run.outcome import GroupOutcome
from tests.run.test_settings import settings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from kvharness import LoadedModel, View
    from kvharness.records.record import Record
    from kvharness.run.planner import Tasks

GROUP = Group("needle", 0)


@dataclass(frozen=True)
class First(Policy):
    """Keeps what comes first, on so many items; then it fails."""

    able: bool = True
    items: int = 9
    seen: list[int] = field(default_factory=list)

    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del model, seed
        if not self.able:
            raise RuntimeError("no luck")
        return self

    def score(self, view: View) -> Tensor:
        if view.layer == 0:
            self.seen.append(view.tokens)
        if len(self.seen) > self.items:
            raise ZeroDivisionError("no more")
        return -view.positions.float().repeat(view.kv_heads, 1)


@pytest.fixture
def kept() -> list[Record]:
    return []


@pytest.fixture
def computation(tmp_path: Path, tiny_model: Path, kept: list[Record]) -> Computation:
    raw = {"kv_context": "300", "kv_generate": "none", "kv_store": str(tmp_path), "kv_masks": True}
    made = settings({**raw, "kv_device": "cpu", "kv_dtype": "float32"})
    return Computation(made, find_model(str(tiny_model)), keep=kept.append)


def waiting(model: Path, **policies: Policy) -> Tasks:
    """Each policy on two items."""
    made = settings({"kv_context": "300", "kv_items": "2"})
    return [
        (item, [_task(name, policy, f"{item.name}-{name}") for name, policy in policies.items()])
        for item in Supply(made, find_model(str(model))).items(GROUP)
    ]


def _task(name: str, policy: Policy, key: str) -> Task:
    loaded = LoadedPolicy(
        spec=PolicySpec(name=name),
        policy=policy,
        distribution="mine-kv",
        version="1.0",
        digest=lambda: "s",
        parameters="{}",
    )
    cell = Cell(suite="needle", policy=name, retention=retention_from_text("0.25"), seed=0)
    return Task(cell=cell, policy=loaded, key=key)


def test_each_record_is_kept_as_it_comes(
    computation: Computation, kept: list[Record], tiny_model: Path, tmp_path: Path
) -> None:
    outcome = GroupOutcome()
    computation.compute(GROUP, waiting(tiny_model, a=First(), b=First()), outcome)
    items = [f"needle-s0-0{number}-{name}" for number in range(2) for name in "ab"]
    assert [record.key for record in kept] == items
    assert (outcome.computed, outcome.failures) == (4, {})
    assert {name: len(found) for name, found in outcome.records.items()} == {
        "a-r0.25-s0": 2,
        "b-r0.25-s0": 2,
    }
    mask = read_mask(tmp_path, kept[0].mask_digest[0])
    assert mask is not None
    assert mask.sum() == sum(kept[0].kept)


def test_a_policy_that_fails_fails_alone(
    computation: Computation, kept: list[Record], tiny_model: Path
) -> None:
    outcome = GroupOutcome()
    policies = {"never": First(able=False), "once": First(items=1), "ever": First()}
    computation.compute(GROUP, waiting(tiny_model, **policies), outcome)
    assert [record.key for record in kept] == [
        "needle-s0-00-once",
        "needle-s0-00-ever",
        "needle-s0-01-ever",
    ]
    never, once = (outcome.failures[f"{name}-r0.25-s0"] for name in ("never", "once"))
    assert never.startswith("policy 'never': ready failed with RuntimeError: no luck")
    assert once.startswith("needle-s0-01: policy 'once': ZeroDivisionError: no more")
    assert outcome.computed == 3
