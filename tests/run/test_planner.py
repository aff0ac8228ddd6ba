from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from kvharness.cell import Cell, Group
from kvharness.contract import retention_from_text
from kvharness.errors import ModelProblem, PolicyProblem, TrainingProblem
from kvharness.run.outcome import GroupOutcome
from kvharness.run.planner import TaskPlanner
from tests.runs import a_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.items.item import Item

GROUP = Group("needle", 0)
ITEMS = [SimpleNamespace(name=f"needle-s0-0{n}", context=range(60)) for n in range(2)]


def cell(policy: str) -> Cell:
    return Cell(suite="needle", policy=policy, retention=retention_from_text("0.25"), seed=0)


class Identity:
    """Keys that can be read: item, policy and weights."""

    def key(self, cell: Cell, item: Item, weights: str) -> str:
        return f"{item.name[-2:]}-{cell.policy}-{weights}"


def planner(
    *,
    stored: Sequence[str] = (),
    named: Sequence[str] = (),
    generated: bool = True,
    **checkpoints: Any,
) -> TaskPlanner:
    def loaded(checkpoint: Any) -> SimpleNamespace:
        def of(source: object, seed: int) -> str:
            assert (source, seed) == ("the model", 0)
            if isinstance(checkpoint, BaseException):
                raise checkpoint
            return str(checkpoint)

        return SimpleNamespace(policy=SimpleNamespace(checkpoint=of))

    there = {key: SimpleNamespace(record=a_record(key)) for key in stored}
    parts: dict[str, Any] = {
        "source": "the model",
        "supply": SimpleNamespace(items=lambda _: ITEMS, is_generated=lambda _: generated),
        "identity": Identity(),
        "shelf": SimpleNamespace(find=lambda: there),
    }
    policies = {slug: loaded(checkpoint) for slug, checkpoint in checkpoints.items()}
    return TaskPlanner(cast("Any", policies), named, **parts)


def keys(tasks: Any) -> list[list[str]]:
    return [[task.key for task in found] for _, found in tasks]


def test_every_cell_is_a_task_on_every_item() -> None:
    outcome = GroupOutcome()
    tasks = planner(a="w", b="").plan(GROUP, [cell("a"), cell("b")], outcome)
    assert [item.name for item, _ in tasks] == [item.name for item in ITEMS]
    assert keys(tasks) == [["00-a-w", "00-b-"], ["01-a-w", "01-b-"]]
    assert (outcome.items, outcome.failures, outcome.untrained) == (2, {}, {})


@pytest.mark.parametrize(("generated", "windows"), [(True, True), (False, False)])
def test_only_generated_contexts_are_looked_at(generated: object, windows: object) -> None:
    outcome = GroupOutcome()
    planner(a="", generated=bool(generated)).plan(GROUP, [cell("a")], outcome)
    assert bool(outcome.novelty.windows) is windows


def test_what_is_stored_is_reused_and_the_rest_is_missing() -> None:
    made = planner(a="", b="", stored=["00-a-", "01-a-", "01-b-"])
    outcome = GroupOutcome()
    missing = made.missing(made.plan(GROUP, [cell("a"), cell("b")], outcome), outcome)
    assert keys(missing) == [["00-b-"]]
    assert [item.name for item, _ in missing] == [ITEMS[0].name]
    reused = {name: [each.key for each in found] for name, found in outcome.records.items()}
    assert reused == {cell("a").name: ["00-a-", "01-a-"], cell("b").name: ["01-b-"]}
    assert outcome.reused == 3


@pytest.mark.parametrize(
    ("error", "named", "told", "reason"),
    [
        (TrainingProblem("no weights"), ["a"], "failures", "policy 'a': no weights"),
        (TrainingProblem("no weights"), [], "untrained", "policy 'a': no weights"),
        (ModelProblem("no model"), [], "failures", "policy 'a': no model"),
        (PolicyProblem("a", "is odd"), [], "failures", "policy 'a': is odd"),
        (KeyError("x"), [], "failures", "policy 'a': checkpoint failed with KeyError: 'x'"),
        (SystemExit(3), [], "failures", "policy 'a': checkpoint failed with SystemExit: 3"),
    ],
)
def test_a_policy_without_a_checkpoint_has_no_tasks(
    error: BaseException, named: list[str], told: str, reason: str
) -> None:
    outcome = GroupOutcome()
    made = planner(a=error, b="", named=named)
    tasks = made.plan(GROUP, [cell("a"), cell("b")], outcome)
    assert keys(tasks) == [["00-b-"], ["01-b-"]]
    both = {"failures": outcome.failures, "untrained": outcome.untrained}
    assert both.pop(told) == {cell("a").name: reason}
    assert both.popitem()[1] == {}
