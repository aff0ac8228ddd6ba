"""What a policy declares: types, methods of an interface that is gone, and steps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from kvharness import (
    Capabilities,
    LoadedModel,
    Observation,
    Policy,
    Positions,
    Queries,
    Reading,
    Stepping,
    afterwards,
    as_policy,
)
from kvharness.discovery.declared import made_ready, misdeclared
from kvharness.discovery.registry import installed, load
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import PolicyProblem

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import Step, View
    from kvharness.model.loaded import Runtime


@dataclass(frozen=True)
class Plain(Policy):
    window: int = 32

    def score(self, view: View) -> Tensor:
        return view.keys.float().sum(dim=-1)


class Steps(Plain):
    def step(self, step: Step) -> Tensor:
        return self.score(step.view)


@pytest.mark.parametrize("name", [name for name, found in installed().items() if not found.wraps])
def test_nothing_is_wrong_with_our_own(name: str) -> None:
    policy = load(PolicySpec(name=name), installed()).policy
    assert not misdeclared(policy)
    able = policy.capabilities.decodes or policy.capabilities.blocks
    assert isinstance(policy, Stepping) or not able


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        (
            "needs",
            {"queries": 8},
            "needs is a dict, expected frozenset({Queries(8)}) or the like",
        ),
        ("positions", "compact", "positions is a str, expected Positions"),
        ("capabilities", None, "capabilities is a NoneType, expected Capabilities"),
    ],
)
def test_declarations_have_types(name: str, given: Any, told: str) -> None:
    assert misdeclared(type("Wrong", (Plain,), {name: given})()) == told
    assert misdeclared(type("Wrong", (Plain,), {name: property(lambda _: given)})()) == told


class Bare(Observation[float]):
    def observing(self, reading: Reading) -> Any:
        return afterwards(lambda: dict.fromkeys(reading.layers, 0.0))


@dataclass(frozen=True)
class Frozen(Bare):
    """As it should be."""


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (8, "needs has a int, expected an Observation such as Queries(8)"),
        (Queries, "needs has a ABCMeta, expected an Observation such as Queries(8)"),
        (
            Bare(),
            "needs has a Bare, which equals no other one: make the class a dataclass(frozen=True)",
        ),
        (Frozen(), ""),
    ],
)
def test_needs_are_observations_that_can_be_compared(given: Any, told: str) -> None:
    assert misdeclared(type("Mine", (Plain,), {"needs": frozenset({given})})()) == told


def takes(*names: str) -> Any:
    text = ", ".join(["self", *names])
    return eval(f"lambda {text}: None")  # noqa: S307 - written above


@pytest.mark.parametrize(
    ("name", "method", "told"),
    [
        ("prepare", takes("model", "seed"), "a method prepare, .*; use ready.model, seed."),
        ("informed", takes("trace"), "a method informed, .*; use choice.trace"),
        ("score_all", takes("trace"), "a method score_all, .*; use score.view., and select"),
        (
            "allocate",
            takes("scores", "budget", "protected"),
            "it has allocate.scores, budget, protected.; write allocate.choice., with",
        ),
        (
            "select",
            takes("scores", "budgets", "protected"),
            "it has select.scores, budgets, protected.; write select.choice, budgets., with",
        ),
        ("allocate", 3, "it has allocate"),
    ],
)
def test_methods_of_before_are_named_with_what_takes_their_place(
    name: str, method: Any, told: str
) -> None:
    wrong = misdeclared(type("Old", (Plain,), {name: method})())
    assert re.search(told, wrong), wrong


def test_other_methods_of_these_names_are_the_policys_own_affair() -> None:
    own = {"prepare": takes("keys"), "informed": takes(), "score_all": 3}
    assert not misdeclared(type("Mine", (Plain,), own)())
    flexible = {"allocate": takes("*given"), "select": takes("choice", "budgets", "more=0")}
    assert not misdeclared(type("Mine", (Plain,), flexible)())


@pytest.mark.parametrize(
    ("capabilities", "told"),
    [
        (Capabilities(decodes=True), "declare decodes=True, and it has no step; add `def step("),
        (Capabilities(blocks=True), "declare blocks=True, and it has no step"),
        (Capabilities(blocks=True, decodes=True), "declare decodes=True and blocks=True, and"),
    ],
)
def test_evicting_on_the_way_takes_a_step(capabilities: Capabilities, told: str) -> None:
    able: dict[str, Any] = {"capabilities": capabilities}
    wrong = misdeclared(type("Still", (Plain,), able)())
    assert told in wrong
    assert wrong.endswith("def step(self, step: Step) -> Tensor: return self.score(step.view)`")
    assert not misdeclared(type("Moving", (Steps,), able)())
    assert not misdeclared(as_policy(capabilities=capabilities)(lambda view: view.keys))


@dataclass(frozen=True)
class Learning(Policy):
    """Becomes what a test says."""

    becomes: Any = None
    needs = frozenset({Queries(2)})

    def ready(self, model: LoadedModel, seed: int) -> Any:
        assert (model.source.name, seed) == ("tiny", 3)
        return self.becomes


def becoming(**changes: Any) -> Policy:
    declared = {"needs": frozenset({Queries(2)}), **changes}
    return as_policy(**declared)(lambda view: view.keys.float().sum(dim=-1))


@pytest.mark.parametrize(
    ("becomes", "told"),
    [
        (becoming(), ""),
        (None, "ready returned NoneType, expected the policy that scores"),
        (
            becoming(needs=frozenset()),
            r"needs frozenset\(\), expected frozenset\({Queries\(count=2",
        ),
        (becoming(positions=Positions.COMPACT), "with positions compact, expected original"),
        (
            becoming(capabilities=Capabilities(nested=False)),
            "with capabilities .*nested=False.*, expected .*nested=True",
        ),
    ],
)
def test_a_ready_policy_declares_what_the_built_one_does(
    becomes: Any, told: str, runtime: Runtime
) -> None:
    model = LoadedModel(source=runtime.source, module=runtime.model)
    if not told:
        assert made_ready(Learning(becomes), model, 3, name="mine") is becomes
        return
    with pytest.raises(PolicyProblem, match=rf"policy 'mine': .*{told}"):
        made_ready(Learning(becomes), model, 3, name="mine")


def test_a_ready_policy_must_step_if_the_built_one_does(runtime: Runtime) -> None:
    able = Capabilities(decodes=True)

    class Still(Plain):
        capabilities = able

    class Moving(Steps):
        capabilities = able

        def ready(self, model: LoadedModel, seed: int) -> Policy:
            del model, seed
            return Still()

    model = LoadedModel(source=runtime.source, module=runtime.model)
    with pytest.raises(PolicyProblem, match="a policy that is not one: its capabilities declare"):
        made_ready(Moving(), model, 0, name="mine")
