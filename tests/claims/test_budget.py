from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvharness.claims import part
from kvharness.claims.budget import certifications, smallest
from tests.claims.conftest import Made, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvharness.claims.budget import Certification

RETENTIONS = ("0.1", "0.25", "0.5", "0.75")


def made(losses: Mapping[str, float], *, suite: str = "qa", into: Made | None = None) -> Made:
    """`snapkv` loses this much against `full`, in nll."""
    found = into or Made()
    base = spread(mean=2.0, seed=9)
    found.run("full", nll=base, suite=suite)
    for number, (retention, loss) in enumerate(losses.items()):
        found.run(
            "snapkv", retention, nll=base + spread(mean=loss, sd=0.1, seed=number), suite=suite
        )
    return found


def certify(given: Made, *suites: str) -> list[Certification]:
    return certifications(
        given.evidence(), policy="snapkv", suites=suites or ("qa",), metric="nll", margin=0.2
    )


def states(found: list[Certification]) -> list[tuple[str, bool, bool]]:
    return [(each.retention, each.certified, each.tested) for each in found]


def test_retentions_are_certified_from_high_to_low_until_the_first_that_fails() -> None:
    found = certify(made({"0.1": 0.0, "0.25": 0.3, "0.5": 0.05, "0.75": 0.0}))
    assert states(found) == [
        ("0.75", True, True),
        ("0.5", True, True),
        ("0.25", False, True),
        # It would pass, but its turn never came.
        ("0.1", False, False),
    ]
    best = smallest(found)
    assert best is not None
    assert best.retention == "0.5"


def test_a_loss_just_beyond_the_margin_is_not_certified() -> None:
    # Half a 90 % interval of 60 differences with a deviation of 0.1 is 0.0216.
    assert certify(made({"0.5": 0.2 - 0.0217}))[0].certified
    assert not certify(made({"0.5": 0.2 - 0.0215}))[0].certified
    assert smallest(certify(made({"0.5": 0.3}))) is None
    assert smallest([]) is None


def test_several_suites_have_to_pass_together() -> None:
    both = made({"0.5": 0.0}, suite="needle", into=made({"0.5": 0.3}))
    assert certify(both, "needle")[0].certified
    assert not certify(both, "needle", "qa")[0].certified
    assert [str(part.part.comparison) for part in certify(both, "needle", "qa")[0].parts] == [
        "needle at 0.5",
        "qa at 0.5",
    ]


def test_a_missing_cell_ends_the_sequence() -> None:
    found = certify(made({"0.5": 0.0, "0.75": 0.0}).drop(policy="snapkv", seed=1))
    assert states(found) == [("0.75", False, True), ("0.5", False, False)]
    assert found[0].parts[0].part.reason == "1 of 10 cells missing"


def test_retentions_are_ordered_as_numbers() -> None:
    found = certify(made({"0.1": 0.0, "1_3": 0.0, "1": 0.0, "0.25": 0.0}))
    assert [each.retention for each in found] == ["1", "1_3", "0.25", "0.1"]


def test_the_bytes_that_are_saved() -> None:
    given = made({"0.5": 0.0})
    given.records = [
        replace(each, cache_bytes=100 if each.policy == "full" else 52) for each in given.records
    ]
    assert certify(given)[0].saved == pytest.approx(0.48)
    given.records = [each for each in given.records if each.policy == "snapkv"]
    assert certify(given)[0].saved is None


def test_no_retention_is_certified_wrongly_in_more_than_one_study_of_twenty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What it costs to tell how many items would settle a part is not what is tested here.
    monkeypatch.setattr(part, "units_needed", lambda *_: None)
    monkeypatch.setattr(part, "smallest_detectable", lambda *_: 0.0)
    rng = np.random.default_rng(11)
    studies, wrong, alone = 400, 0, 0
    for _ in range(studies):
        given = Made(seeds=1, items=20).run("full", nll=0)
        for retention in RETENTIONS:
            # Exactly at the margin: not one of them may be certified.
            given.run("snapkv", retention, nll=rng.normal(0.2, 0.1, size=20))
        found = certify(given)
        wrong += any(each.certified for each in found)
        alone += any(each.parts[0].p_supported <= 0.05 for each in found)
    # 5 % of 400 is 20, with a standard deviation of 4.4.
    assert wrong <= 33
    assert wrong >= 7, "the level is used"
    assert alone >= 50, "testing each on its own would be wrong in 19 %"
