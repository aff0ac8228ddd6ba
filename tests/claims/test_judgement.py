from __future__ import annotations

import pytest

from kvharness.claims.judgement import Judgement, Part
from kvharness.statistics.estimate import Interval
from kvharness.statistics.region import Verdict
from tests.claims.conftest import claim


def judgement(*known: bool, control: Judgement | None = None, name: str | None = None) -> Judgement:
    (comparison,) = claim().comparisons()
    interval = Interval(mean=0.0, low=-1.0, high=1.0)
    parts = tuple(
        Part(
            comparison=comparison,
            verdict=Verdict.INCONCLUSIVE,
            interval=interval if each else None,
        )
        for each in known
    )
    given = claim(control=name)
    return Judgement(claim=given, verdict=Verdict.INCONCLUSIVE, parts=parts, control=control)


@pytest.mark.parametrize(
    ("found", "whole"),
    [
        (judgement(True, True), True),
        (judgement(True, False), False),
        (judgement(), False),
        (judgement(True, control=judgement(True), name="c"), True),
        (judgement(True, control=judgement(False), name="c"), False),
        (judgement(True, control=None, name="c"), False),
    ],
)
def test_a_claim_is_whole_with_every_part_of_it_and_its_control(
    found: Judgement, *, whole: bool
) -> None:
    assert found.whole is whole
