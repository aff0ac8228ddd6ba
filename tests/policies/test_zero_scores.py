from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvharness import Policy, Protection
from kvharness_policies.floor import Floor
from kvharness_policies.full import Full
from kvharness_policies.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.policies.conftest import Keep, MakeTrace


@pytest.mark.parametrize("policy", [Full(), Floor(), Oracle()])
def test_scores_are_sound(policy: Policy, check_scores: Callable[[Policy], None]) -> None:
    check_scores(policy)


def test_equal_scores_go_to_the_earlier_position(make_trace: MakeTrace, keep: Keep) -> None:
    kept = keep(Floor(), make_trace(tokens=10), 5, Protection(sinks=1, recents=2))
    assert kept == [[[0, 1, 2, 8, 9]] * 2] * 2
