from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness_policies.full import Full

if TYPE_CHECKING:
    from tests.policies.conftest import Keep, MakeTrace


def test_full_keeps_everything_at_its_budget(make_trace: MakeTrace, keep: Keep) -> None:
    trace = make_trace(tokens=10)
    assert keep(Full(), trace, 10) == [[list(range(10))] * 2] * 2
