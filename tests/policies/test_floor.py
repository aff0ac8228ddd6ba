from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness import Protection
from kvharness_policies.floor import Floor

if TYPE_CHECKING:
    from tests.policies.conftest import Keep, MakeTrace


def test_floor_keeps_sinks_and_recents_at_its_budget(make_trace: MakeTrace, keep: Keep) -> None:
    protection = Protection(sinks=2, recents=3)
    kept = keep(Floor(), make_trace(tokens=10), protection.total, protection)
    assert kept == [[[0, 1, 7, 8, 9]] * 2] * 2
