from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kvharness.claims.claim import Claim, Unit
from kvharness.claims.part import judge_part, missing, needed_cells, p_values, paired
from kvharness.statistics.estimate import Sample
from kvharness.statistics.method import Method
from kvharness.statistics.region import Kind, Region, Verdict
from tests.claims.conftest import UNITS, Made, claim, pair, spread

SUPPORTED, REFUTED, INCONCLUSIVE = Verdict.SUPPORTED, Verdict.REFUTED, Verdict.INCONCLUSIVE
#: Half of the 90 % interval of 60 differences whose standard deviation is 1.
HALF = float(stats.t.ppf(0.95, UNITS - 1)) / math.sqrt(UNITS)

NUMBERS = st.floats(-100, 100).map(lambda number: round(number, 3))


def judged(given: Claim, made: Made) -> Any:
    (comparison,) = given.comparisons()
    return judge_part(given, comparison, made.evidence())


def verdict(given: Claim, made: Made) -> Verdict:
    found: Verdict = judged(given, made).part.verdict
    return found


@pytest.mark.parametrize(
    ("kind", "margin", "edge", "inside"),
    [
        (Kind.BETTER, 0.0, 0.0, +1),
        (Kind.BETTER, 0.3, 0.3, +1),
        (Kind.NOT_BETTER, 0.3, 0.3, -1),
        (Kind.NOT_BETTER, 0.0, 0.0, -1),
        (Kind.NOT_WORSE, 0.3, -0.3, +1),
        (Kind.EQUIVALENT, 0.3, 0.3, -1),
        (Kind.EQUIVALENT, 0.3, -0.3, +1),
    ],
)
@pytest.mark.parametrize("metric", ["nll", "exact"])
def test_an_effect_just_beyond_the_margin_flips_the_verdict(
    kind: Kind, margin: float, edge: float, inside: int, metric: str
) -> None:
    mine = claim(kind=kind, margin=margin, metric=metric)
    # A narrow spread, so that an interval fits into the region of `equivalent`.
    sd = 0.1
    for beyond, expected in (
        (+1.01, SUPPORTED),
        (+0.99, INCONCLUSIVE),
        (0.0, INCONCLUSIVE),
        (-0.99, INCONCLUSIVE),
        (-1.01, REFUTED),
    ):
        mean = edge + inside * beyond * HALF * sd
        assert verdict(mine, pair(spread(mean=mean, sd=sd), metric=metric)) is expected


@pytest.mark.parametrize("kind", Kind)
def test_recovered_flips_there_too(kind: Kind) -> None:
    mine = claim(kind=kind, margin=0.1, metric="recovered")
    edge = -0.1 if kind is Kind.NOT_WORSE else 0.1
    inside = -1 if kind in {Kind.NOT_BETTER, Kind.EQUIVALENT} else 1
    for beyond, expected in ((1.02, SUPPORTED), (0.0, INCONCLUSIVE), (-1.02, REFUTED)):
        difference = spread(mean=edge + inside * beyond * HALF * 0.1, sd=0.1)
        common = spread(mean=0.5, sd=0.3, seed=2)
        made = Made().anchors().recovers("random", "0.25", common)
        made.recovers("snapkv", "0.25", common + difference)
        assert verdict(mine, made) is expected


def test_the_part_tells_its_numbers() -> None:
    found = judged(claim(), pair(spread(mean=0.1))).part
    assert found.units == UNITS
    assert found.sd == pytest.approx(1)
    assert found.interval.mean == pytest.approx(0.1)
    assert found.interval.low == pytest.approx(0.1 - HALF)
    assert found.interval.high == pytest.approx(0.1 + HALF)
    # z approximation: (1.645 + 0.842) / sqrt(60) is 0.321, and 618 units see 0.1 of a deviation.
    assert found.detectable == pytest.approx(0.325, abs=0.005)
    assert found.needed == pytest.approx(620, abs=3)
    assert str(found.comparison) == "qa at 0.25"


def test_what_is_settled_needs_no_more_units() -> None:
    assert judged(claim(), pair(spread(mean=1.0))).part.needed is None


def test_units_needed_are_more_than_there_are() -> None:
    # 80 % power asks for fewer units than there are, yet this sample is undecided.
    found = judged(claim(), pair(spread(mean=HALF * 0.999))).part
    assert found.verdict is INCONCLUSIVE
    assert found.needed > UNITS


def test_a_wide_exact_interval_asks_for_more_items_than_there_are() -> None:
    wins = np.zeros(UNITS)
    wins[:15] = 1
    found = judged(
        claim(metric="exact", margin=0.1), pair(wins, metric="exact", base=np.zeros(UNITS))
    ).part
    # Student's t would have decided it with 52.
    assert (found.verdict, found.needed) == (INCONCLUSIVE, UNITS + 1)


@pytest.mark.parametrize(
    ("kind", "margin", "expected"),
    [
        (Kind.BETTER, 0.0, REFUTED),
        (Kind.NOT_BETTER, 0.0, SUPPORTED),
        (Kind.NOT_WORSE, 0.1, SUPPORTED),
        (Kind.EQUIVALENT, 0.1, SUPPORTED),
    ],
)
def test_identical_outputs_are_no_difference(kind: Kind, margin: float, expected: Verdict) -> None:
    made = pair(0.0)
    assert verdict(claim(kind=kind, margin=margin), made) is expected


def test_binary_answers_are_judged_exactly() -> None:
    wins = np.zeros(UNITS)
    wins[:7] = 1
    mine = claim(metric="exact")
    made = pair(wins, metric="exact", base=np.zeros(UNITS))
    # Seven against none: 0.5 to the 7th is below 5 %.
    assert judged(mine, made).p_supported == pytest.approx(0.5**7)
    assert verdict(mine, made) is SUPPORTED
    wins[4:] = 0
    few = pair(wins, metric="exact", base=np.zeros(UNITS))
    # Four against none are not, 0.0625; Student's t would have said so.
    assert verdict(mine, few) is INCONCLUSIVE
    assert verdict(replace(mine, method=Method.T), few) is SUPPORTED


def test_few_binary_answers_may_settle_it() -> None:
    mine, made = claim(metric="exact"), pair(1.0, metric="exact", base=np.zeros(12), seeds=1)
    assert verdict(mine, made) is SUPPORTED


def test_below_twenty_units_nothing_is_settled() -> None:
    for seeds, items, expected in ((1, 19, INCONCLUSIVE), (1, 20, SUPPORTED)):
        found = judged(claim(), pair(spread(mean=9.0, units=items), seeds=seeds, items=items))
        assert found.part.verdict is expected
    few = judged(claim(), pair(spread(mean=9.0, units=19), seeds=1, items=19))
    assert few.part.reason == "19 items; fewer than 20 settle nothing"
    assert (few.p_supported, few.p_refuted) == (1.0, 1.0)
    assert few.part.interval is not None, "it is shown, but not trusted"


def test_five_seeds_say_why_they_say_little() -> None:
    found = judged(claim(unit=Unit.SEED), pair(spread(mean=9.0))).part
    assert found.verdict is INCONCLUSIVE
    assert found.units == 5
    assert found.reason == (
        "5 seeds are 5 units: an exact test of them cannot go below p = 0.0312 one-sided; "
        "20 units are needed"
    )


def test_twenty_seeds_are_units() -> None:
    numbers = spread(mean=1.0, units=40)
    found = judged(claim(unit=Unit.SEED), pair(numbers, seeds=20, items=2)).part
    assert found.units == 20
    assert found.sd == pytest.approx(numbers.reshape(20, 2).mean(axis=1).std(ddof=1))


def test_the_claims_method_is_used() -> None:
    made = pair(np.random.default_rng(0).exponential(size=UNITS))
    found = {
        method: judged(claim(method=method), made).part.interval.low
        for method in (Method.T, Method.BCA)
    }
    assert found[Method.T] != pytest.approx(found[Method.BCA], abs=1e-3)
    again = judged(claim(method=Method.BCA), made).part.interval.low
    assert again == found[Method.BCA], "the same claim on the same data has the same verdict"
    exact = judged(claim(method=Method.EXACT), made).part
    assert (exact.verdict, exact.interval) == (INCONCLUSIVE, None)
    assert "use t or bca" in exact.reason


def test_a_missing_cell_makes_it_inconclusive_and_never_shrinks_n() -> None:
    made = pair(spread(mean=9.0)).drop(policy="random", seed=2)
    found = judged(claim(), made)
    assert found.missing
    assert found.part.verdict is INCONCLUSIVE
    assert found.part.interval is None
    assert found.part.reason == "1 of 10 cells missing"


def test_anchors_are_needed_for_recovered_only() -> None:
    mine, other = claim(metric="recovered", baseline="full"), claim(metric="exact")
    (one,), (two,) = mine.comparisons(), other.comparisons()
    assert [str(column) for _, column in needed_cells(mine, one)] == [
        "snapkv-r0.25",
        "full",
        "floor",
    ]
    assert len(needed_cells(other, two)) == 2
    made = Made().anchors().recovers("snapkv", "0.25", 0.5).drop(policy="floor", seed=0)
    assert missing(needed_cells(mine, one), made.evidence()) == "1 of 15 cells missing"


def test_both_have_to_answer_the_same_items() -> None:
    made = pair(spread())
    made.records[0] = replace(made.records[0], item_digest="another")
    reason = judged(claim(), made).part.reason
    assert reason == "snapkv-r0.25 and random-r0.25 did not answer the same items"


@pytest.mark.parametrize("method", [Method.T, Method.EXACT])
@settings(max_examples=60)
@given(data=st.data())
def test_p_values_agree_with_the_verdict(method: Method, data: st.DataObject) -> None:
    low, high = data.draw(st.sampled_from([(-1, 1), (0, 1), (-1, 0), (1, 1), (-1, -1)]))
    scale = 1 if method is Method.EXACT else 100
    numbers = st.integers(low * scale, high * scale)
    values = np.array(data.draw(st.lists(numbers, min_size=20, max_size=40)), dtype=float)
    kind, margin = data.draw(st.sampled_from(Kind)), data.draw(st.sampled_from([0.05, 0.3, 0.9]))
    sample = Sample.of(values / scale, method=method)
    region = Region.of(kind, margin)
    supported, refuted = p_values(region, sample)
    found = region.verdict(sample.interval(0.05))
    assert (supported <= 0.05) == (found is SUPPORTED)
    assert (refuted <= 0.05) == (found is REFUTED)
    assert min(supported, refuted) >= 0
    assert max(supported, refuted) <= 1


@given(st.dictionaries(st.text(max_size=3), st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=30))
def test_differences_are_taken_within_each_unit(units: dict[str, tuple[float, float]]) -> None:
    policy = {name: pair[0] for name, pair in reversed(units.items())}
    baseline = {name: pair[1] for name, pair in units.items()}
    sample = paired(policy, baseline, method=Method.T)
    differences = [first - second for first, second in units.values()]
    assert sample.mean == pytest.approx(np.mean(differences), abs=1e-9)
    assert sample.sd == pytest.approx(np.std(differences, ddof=1), abs=1e-9)


def test_only_shared_units_count() -> None:
    assert paired({"a": 3.0, "b": 1.0}, {"a": 1.0, "c": 5.0}).values.tolist() == [2.0]
    with pytest.raises(ValueError, match="finite numbers"):
        paired({"a": 1.0}, {"b": 1.0})


def right_and_wrong(more: int, fewer: int, same: int) -> tuple[dict[str, float], dict[str, float]]:
    pairs = [(1.0, 0.0)] * more + [(0.0, 1.0)] * fewer + [(1.0, 1.0)] * same
    return (
        {str(number): pair[0] for number, pair in enumerate(pairs)},
        {str(number): pair[1] for number, pair in enumerate(pairs)},
    )


def test_right_and_wrong_answers_are_compared_exactly() -> None:
    sample = paired(*right_and_wrong(9, 2, 40))
    assert sample.method is Method.EXACT
    mcnemar = stats.binomtest(9, 11, alternative="greater").pvalue
    assert sample.p_above(0) == pytest.approx(mcnemar)


def test_shares_are_not_right_and_wrong() -> None:
    policy, baseline = right_and_wrong(9, 2, 40)
    assert paired({**policy, "0": 0.5}, baseline).method is Method.T


def test_no_difference_at_all_has_no_width_unless_answers_are_binary() -> None:
    same = {str(number): 0.875 for number in range(30)}
    interval = paired(same, dict(same)).interval()
    assert (interval.low, interval.high) == (0.0, 0.0)
    binary = paired(*right_and_wrong(0, 0, 30)).interval()
    assert binary.low < 0 < binary.high


def test_the_claim_may_choose_the_method() -> None:
    policy, baseline = right_and_wrong(9, 2, 40)
    assert paired(policy, baseline, method=Method.BCA, seed=3).seed == 3
    with pytest.raises(ValueError, match="exact method"):
        paired({"a": 0.5}, {"a": 0.0}, method=Method.EXACT)
