from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.conftest import WHOLE, finish, stable

if TYPE_CHECKING:
    from tests.plugin.conftest import Finished, Lab


def test_two_processes_on_one_store_share_the_work(lab: Lab, whole: Finished) -> None:
    both = [lab.start(*lab.arguments(*WHOLE)) for _ in range(2)]
    results = [finish(process) for process in both]
    for result in results:
        result.assert_outcomes(passed=16)
    assert stable(lab.records()) == stable(whole.lab.records())
    assert lab.lines().total() == len(lab.records()), "every record was computed once"
