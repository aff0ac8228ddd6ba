from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pytest

from kvharness import Policy
from kvharness.discovery.build import build, takes
from kvharness.policy.interface import FunctionPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness import View


def norm(view: View) -> Tensor:
    made: Tensor = view.keys.norm(dim=-1)
    return made


class Order(StrEnum):
    FIRST = "first"


def anything(**given: Any) -> Policy:
    return Plain(**given)


def ordered(*, order: str = Order.FIRST) -> Policy:
    return Plain(window=len(order))


def maker(*, power: int = 2) -> Policy:
    return FunctionPolicy(function=norm) if power else Plain()


@dataclass(frozen=True)
class Plain(Policy):
    window: int = 32
    share: float = 0.5
    causal: bool = True

    def score(self, view: View) -> Tensor:
        return norm(view)


@dataclass(frozen=True)
class Around(Policy):
    scorer: Policy
    other: Policy = Plain()
    power: int = 1

    def score(self, view: View) -> Tensor:
        return self.scorer.score(view)


def of_two(view: View, other: View) -> Tensor:
    return norm(view) + norm(other)


@pytest.mark.parametrize(
    ("offered", "parts", "parameters", "made"),
    [
        (Plain, (), {}, Plain()),
        (Plain, (), {"window": 3, "share": 1, "causal": False}, Plain(3, 1, causal=False)),
        (Plain(window=3), (), {}, Plain(window=3)),
        (norm, (), {}, FunctionPolicy(function=norm)),
        (maker, (), {"power": 0}, Plain()),
        (anything, (), {"window": 3}, Plain(window=3)),
        (Around, (Plain(),), {"power": 2}, Around(Plain(), power=2)),
        (Around, (Plain(1), Plain(2)), {}, Around(Plain(1), Plain(2))),
    ],
)
def test_what_makes_a_policy(
    offered: object, parts: tuple[Policy, ...], parameters: dict[str, Any], made: Policy
) -> None:
    assert build(offered, parts, parameters) == made


@pytest.mark.parametrize(
    ("offered", "parts", "parameters", "told"),
    [
        (Plain(), (), {"window": 3}, "it takes no parameters"),
        (Plain, (), {"window": 2.5}, r"window=2.5: expected a whole number such as 32"),
        (Plain, (), {"window": True}, r"window=True: expected a whole number such as 32"),
        (Plain, (), {"share": "much"}, r"share='much': expected a number such as 0.5"),
        (Plain, (), {"causal": 1}, r"causal=1: expected True or False"),
        (Plain, (), {"window": None}, r"window=None: expected a whole number such as 32"),
        (Plain, (), {"share": None}, r"share=None: expected a number such as 0.5"),
        (3, (), {}, r"int is no policy; expected a function score\(view\), a Policy, or"),
        (of_two, (), {}, r"a function of view, other; expected a function score\(view\)"),
        (Plain, (Around(Plain()),), {}, "window=Around: expected no policy there"),
        (Plain, (), {"windw": 3}, r"no parameter is called 'windw' \(did you mean window\?\)$"),
        (Plain, (), {"q": 3}, "no parameter is called 'q'$"),
    ],
)
def test_what_does_not(
    offered: object, parts: tuple[Policy, ...], parameters: dict[str, Any], told: str
) -> None:
    with pytest.raises(TypeError, match=told):
        build(offered, parts, parameters)


def test_parameters_are_told_with_their_defaults() -> None:
    assert takes(Plain) == "its parameters are window=32, share=0.5, causal=True"
    assert takes(ordered) == "its parameters are order='first'"
    assert takes(lambda: None) == "it takes no parameters"
    assert takes(min) == "it says of no parameters that it takes them"
