from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kvharness.claims.claim import Column, Unit
from kvharness.claims.outlook import lines, outlooks
from kvharness.claims.plan import Plan, columns
from kvharness.statistics.power import smallest_detectable
from kvharness.statistics.region import Kind
from tests.claims.conftest import Made, claim, pair, spread

if TYPE_CHECKING:
    from kvharness.claims.claim import Claim
    from kvharness.claims.outlook import Outlook


def plan(*claims: Claim, seeds: int = 5, items: int = 12) -> Plan:
    chosen = {
        (suite, column) for each in claims for suite in each.suites for column in columns(each)
    }
    return Plan(items=items, drawn=seeds, seeds=dict.fromkeys(chosen, frozenset(range(seeds))))


def look(given: Claim, *, made: Made | None = None, **size: int) -> Outlook:
    (found,) = outlooks([given], plan(given, **size), made.evidence() if made else None)
    return found


def told(given: Claim, *, made: Made | None = None, **size: int) -> str:
    *_, line = lines([look(given, made=made, **size)])
    return " ".join(line.split())


@pytest.mark.parametrize(("metric", "sd"), [("recovered", 0.25), ("nll", 1.0), ("f1", 0.5)])
def test_what_is_typical_of_a_metric_is_taken_where_nothing_is_recorded(
    metric: str, sd: float
) -> None:
    found = look(claim(metric=metric))
    assert found.units == 60
    assert found.detectable == pytest.approx(smallest_detectable(sd, 60))


def test_recorded_differences_tell_the_spread() -> None:
    found = look(claim(), made=pair(spread(sd=0.02)), seeds=2)
    assert found.detectable == pytest.approx(smallest_detectable(0.02, 24))


def test_a_power_of_four_fifths_is_what_it_says() -> None:
    size = look(claim(), made=pair(spread(sd=1.0))).detectable
    assert size is not None
    rng = np.random.default_rng(0)
    draws = rng.normal(size, 1, size=(4000, 60))
    error = draws.std(axis=1, ddof=1) / math.sqrt(60)
    # Student's t with 59 degrees of freedom: 1.671 at 5 %.
    assert (draws.mean(axis=1) - 1.671 * error > 0).mean() == pytest.approx(0.8, abs=0.02)


def test_the_hardest_part_decides() -> None:
    mine = claim(retentions=("0.1", "0.25"))
    made = pair(spread(sd=0.5))
    made.run("snapkv", "0.1", nll=spread(sd=2.0, seed=5)).run("random", "0.1", nll=3)
    assert look(mine, made=made).detectable == pytest.approx(smallest_detectable(2.0, 60))


def test_only_planned_parts_and_claims_count() -> None:
    mine, other = claim(retentions=("0.1", "0.25")), claim(id="b", policy="h2o")
    some = Plan(
        items=12,
        drawn=5,
        seeds={
            ("qa", Column("snapkv", "0.25")): frozenset(range(4)),
            ("qa", Column("random", "0.25")): frozenset(range(3)),
            ("qa", Column("h2o", "0.25")): frozenset(),
        },
    )
    (found,) = outlooks([mine, other], some)
    assert found.claim is mine
    assert found.units == 36


def test_too_few_items_find_nothing() -> None:
    found = look(claim(), seeds=1)
    assert found.detectable == math.inf
    assert found.too_small
    assert told(claim(), seeds=1) == "mine 0 nothing: 12 items are too few"
    assert told(claim(unit=Unit.SEED)) == "mine 0 nothing: 5 seeds are too few"
    assert math.isfinite(look(claim(metric="exact"), seeds=1).detectable or 0), "exact methods"


@pytest.mark.parametrize(
    ("kind", "margin", "short"),
    [
        (Kind.NOT_WORSE, 0.1, True),
        (Kind.NOT_WORSE, 0.4, False),
        (Kind.EQUIVALENT, 0.1, True),
        (Kind.NOT_BETTER, 0.1, True),
        # Its effect may be any size.
        (Kind.BETTER, 0.1, False),
        (Kind.BETTER, 0.0, False),
        (Kind.NOT_BETTER, 0.0, False),
    ],
)
def test_a_run_that_cannot_settle_a_claim_says_so(
    kind: Kind, margin: float, *, short: bool
) -> None:
    mine = claim(kind=kind, margin=margin)
    assert look(mine).too_small is short
    assert told(mine).endswith("0.32 nll with 60 items: this run cannot settle it") is short


def test_bytes_are_not_known_before_they_were_measured() -> None:
    mine = claim(metric="bytes")
    assert told(mine) == "mine 0 not known before bytes was measured once, with 60 items"
    assert not look(mine).too_small
    assert look(mine, made=pair(0.0)).detectable == 0


@pytest.mark.parametrize("changes", [{"metric": "f1"}, {"baseline": "h2o"}])
def test_records_that_do_not_tell_leave_what_is_typical(changes: dict[str, Any]) -> None:
    mine = claim(**changes)
    assert look(mine, made=pair(spread(sd=0.02))).detectable == look(mine).detectable


def test_one_shared_item_tells_no_spread() -> None:
    assert look(claim(), made=pair(0.0, seeds=1, items=1)).detectable == look(claim()).detectable


def test_a_row_for_each_claim_beside_its_margin() -> None:
    claims = [claim(), claim(id="other", kind=Kind.NOT_WORSE, margin=0.5)]
    found = list(lines(outlooks(claims, plan(*claims))))
    assert found == [
        "  'finds' is the smallest difference from the margin that 80 % of runs of this size find",
        "  claim    margin    finds",
        "  -------  --------  ----------------------",
        "  mine     0         0.32 nll with 60 items",
        "  other    0.5       0.32 nll with 60 items",
    ]
