from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kvharness.claims.judge import judge
from kvharness.claims.judgement import Outcome
from kvharness.claims.plan import Plan, ReplayPlan, columns
from kvharness.statistics.region import Kind, Verdict
from tests.claims.conftest import UNITS, Made, claim, pair, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.claims.claim import Claim
    from kvharness.claims.judgement import Judgement

SUPPORTED, REFUTED, INCONCLUSIVE = Verdict.SUPPORTED, Verdict.REFUTED, Verdict.INCONCLUSIVE
RETENTIONS = ("0.1", "0.25", "0.5", "0.75")


def mean_of(p: float) -> float:
    """The mean, in standard deviations, whose one-sided p-value this is."""
    return float(stats.t.isf(p, UNITS - 1)) / math.sqrt(UNITS)


def parts(means: Sequence[float], policy: str = "snapkv", made: Made | None = None) -> Made:
    """Paired differences with these means, in standard deviations, one for each retention."""
    made = made or Made()
    for number, mean in enumerate(means):
        retention = RETENTIONS[number]
        made.run(policy, retention, nll=3 - spread(mean=mean, seed=number))
        if ("random", retention) not in {(r.policy, r.retention) for r in made.records}:
            made.run("random", retention, nll=3)
    return made


def one(given: Claim, made: Made, **evidence: Any) -> Judgement:
    (found,) = judge([given], made.evidence(**evidence))
    return found


def over(count: int, **changes: Any) -> Claim:
    return claim(retentions=RETENTIONS[:count], **changes)


# -- conjunctions ---------------------------------------------------------------------------------


def test_supported_when_every_part_is_without_correction() -> None:
    assert one(over(4), parts([mean_of(0.049)] * 4)).verdict is SUPPORTED
    assert one(over(4), parts([mean_of(0.049)] * 3 + [mean_of(0.051)])).verdict is INCONCLUSIVE


def test_refuted_when_some_part_is_after_holm_over_the_parts() -> None:
    clear = [mean_of(0.001)] * 3
    assert one(over(4), parts([*clear, -mean_of(0.0124)])).verdict is REFUTED
    found = one(over(4), parts([*clear, -mean_of(0.0126)]))
    assert found.verdict is INCONCLUSIVE
    assert found.reason == "refuted alone, but not after Holm over 4 parts: qa at 0.75"
    assert [part.verdict for part in found.parts] == [SUPPORTED] * 3 + [REFUTED]


def test_what_is_undecided_is_named_with_the_items_that_would_settle_it() -> None:
    found = one(over(3), parts([1.0, 0.1, 0.05]))
    assert found.verdict is INCONCLUSIVE
    assert found.reason == "undecided: qa at 0.25, qa at 0.5; about 2475 items would settle it"
    exact = one(over(3), parts([1.0, 0.1, 0.0]))
    assert exact.reason == "undecided: qa at 0.25, qa at 0.5", "no number of items would"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-0.6, 0.6), min_size=1, max_size=4),
    st.sampled_from([(Kind.BETTER, 0.0), (Kind.NOT_WORSE, 0.2), (Kind.BETTER, 0.1)]),
)
def test_verdicts_as_computed_naively(means: list[float], what: tuple[Kind, float]) -> None:
    kind, margin = what
    edge = margin if kind is Kind.BETTER else -margin
    found = one(over(len(means), kind=kind, margin=margin), parts(means))
    above, below = [], []
    for number, mean in enumerate(means):
        values = spread(mean=mean, seed=number)
        above.append(stats.ttest_1samp(values, edge, alternative="greater").pvalue)
        below.append(stats.ttest_1samp(values, edge, alternative="less").pvalue)
    if max(above) <= 0.05:
        expected = SUPPORTED
    elif min(below) * len(below) <= 0.05:
        expected = REFUTED
    else:
        expected = INCONCLUSIVE
    assert found.verdict is expected


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_may_be_supported_and_refuted(kind: Kind) -> None:
    inside, outside = {
        Kind.BETTER: ([0.5, 0.9], [-0.5, 0.0]),
        Kind.NOT_BETTER: ([-0.5, 0.0], [0.5, 0.9]),
        Kind.NOT_WORSE: ([0.5, 0.0], [-0.5, -0.9]),
        Kind.EQUIVALENT: ([-0.05, 0.0, 0.05], [-0.5, 0.5]),
    }[kind]
    mine = claim(kind=kind, margin=0.1)
    for means, expected in ((inside, SUPPORTED), (outside, REFUTED)):
        for mean in means:
            assert one(mine, pair(spread(mean=mean, sd=0.1))).verdict is expected


# -- families -------------------------------------------------------------------------------------


def family(first: float, second: float) -> list[Judgement]:
    made = parts([first]).run("h2o", "0.1", nll=3 - spread(mean=second, seed=7))
    claims = [
        claim(id=name, policy=name, retentions=("0.1",), family="chance")
        for name in ("snapkv", "h2o")
    ]
    return judge(claims, made.evidence())


def test_claims_of_a_family_are_corrected_together() -> None:
    both = family(mean_of(0.024), mean_of(0.049))
    assert [each.verdict for each in both] == [SUPPORTED, SUPPORTED]
    second = family(mean_of(0.026), mean_of(0.049))
    assert [each.verdict for each in second] == [INCONCLUSIVE, INCONCLUSIVE]
    assert (
        second[0].reason == "every part is supported, but not after Holm over the family 'chance'"
    )
    against = family(-mean_of(0.024), mean_of(0.001))
    assert [each.verdict for each in against] == [REFUTED, SUPPORTED]
    assert [each.verdict for each in family(-mean_of(0.026), mean_of(0.001))] == [
        INCONCLUSIVE,
        SUPPORTED,
    ]


def test_half_a_family_is_judged_and_not_held_to_what_the_whole_was_expected_to_be() -> None:
    mine = claim(family="chance", expect={"tiny": "refuted"})
    made = pair(spread(mean=0.5, sd=0.1))
    (whole,) = judge([mine], made.evidence())
    (half,) = judge([mine], made.evidence(), halved={"chance"})
    assert whole.verdict is half.verdict is SUPPORTED
    assert whole.expected is not None
    assert half.expected is None
    assert "other claims of the family 'chance' were not selected" in half.reason


def test_the_reason_names_the_family_that_was_corrected_for() -> None:
    (first, _) = family(-mean_of(0.026), mean_of(0.001))
    assert first.reason == (
        "refuted alone, but not after Holm over 1 parts and the family 'chance': qa at 0.1"
    )


def test_a_claim_that_cannot_be_judged_is_not_counted_in_its_family() -> None:
    made = parts([mean_of(0.04)])
    claims = [
        claim(id=name, policy=name, retentions=("0.1",), family="chance")
        for name in ("snapkv", "absent")
    ]
    assert judge(claims, made.evidence())[0].verdict is SUPPORTED


# -- controls -------------------------------------------------------------------------------------


def controlled(
    control: float, difference: float = 0.0, kind: Kind = Kind.NOT_BETTER
) -> list[Judgement]:
    made = pair(spread(mean=difference, sd=0.1))
    base = np.array([record.metrics["nll"] for record in made.records if record.policy == "random"])
    made.run("oracle", "0.25", nll=base - spread(mean=control, seed=3))
    mine = claim(kind=kind, margin=0.1, control="sees")
    return judge([mine, claim(id="sees", policy="oracle")], made.evidence())


@pytest.mark.parametrize("kind", [Kind.NOT_BETTER, Kind.EQUIVALENT, Kind.NOT_WORSE])
def test_nothing_differs_only_where_a_difference_could_be_seen(kind: Kind) -> None:
    mine, control = controlled(1.0, kind=kind)
    assert (mine.verdict, control.verdict) == (SUPPORTED, SUPPORTED)
    assert mine.control is control
    for effect, found in ((0.0, "inconclusive"), (-1.0, "refuted")):
        mine, _ = controlled(effect, kind=kind)
        assert mine.verdict is INCONCLUSIVE
        assert mine.reason == f"its control sees is {found}"


def test_a_difference_needs_no_control_to_be_seen() -> None:
    mine, _ = controlled(0.0, difference=0.5)
    assert mine.verdict is REFUTED


def test_a_control_that_was_not_run_is_none() -> None:
    made = pair(spread(sd=0.1))
    mine = claim(kind=Kind.NOT_BETTER, margin=0.1, control="sees")
    found = judge([mine, claim(id="sees", policy="oracle")], made.evidence())
    assert found[0].verdict is INCONCLUSIVE
    assert found[0].reason == "its control sees is not evaluated"
    assert not found[0].whole
    (alone,) = judge([mine], made.evidence())
    assert alone.reason == "its control sees is not among the claims"
    assert not alone.whole


# -- those who know the answers -------------------------------------------------------------------


def cheating(difference: float) -> Made:
    made = pair(spread(mean=difference, sd=0.1), oracles=["cheat"])
    base = np.array([each.metrics["nll"] for each in made.records if each.policy == "random"])
    return made.run("cheat", "0.25", nll=base - spread(mean=1.0, seed=3))


def test_an_oracle_is_the_control_of_others_and_never_a_policy() -> None:
    mine = claim(kind=Kind.NOT_BETTER, margin=0.1, control="sees")
    sees = claim(id="sees", policy="cheat")
    found, control = judge([mine, sees], cheating(0.0).evidence())
    assert (found.verdict, control.verdict) == (SUPPORTED, SUPPORTED)
    (alone,) = judge([sees], cheating(0.0).evidence())
    assert alone.verdict is Verdict.NOT_EVALUATED
    assert alone.reason == (
        "cheat knows the true answers, so it is an oracle: it can be the control of another claim, "
        "and is never compared as a policy"
    )


def test_a_policy_may_be_compared_with_an_oracle() -> None:
    (found,) = judge([claim(baseline="cheat", kind=Kind.NOT_BETTER)], cheating(0.0).evidence())
    assert found.verdict is SUPPORTED


def test_without_records_the_control_does_not_matter() -> None:
    mine = claim(kind=Kind.NOT_BETTER, margin=0.1, control="sees", policy="sip")
    (found,) = judge([mine], pair(0.0).evidence())
    assert found.verdict is Verdict.NOT_EVALUATED


# -- what is missing or was not asked for ---------------------------------------------------------


def test_missing_cells_are_counted_once_over_all_parts() -> None:
    made = parts([9.0, 9.0]).drop(policy="snapkv", seed=1)
    made.drop(policy="random", seed=4)
    found = one(over(2), made)
    assert found.verdict is INCONCLUSIVE
    assert found.reason == "4 of 20 cells missing"
    assert [part.reason for part in found.parts] == ["2 of 10 cells missing"] * 2
    assert not found.whole


def test_a_lost_retention_is_missing_not_deselected() -> None:
    made = parts([9.0])
    found = one(over(2), made)
    assert found.reason == "10 of 20 cells missing"


def planned(given: Claim, seeds: int = 5, parts: int | None = None) -> Plan:
    chosen = [("qa", column) for column in columns(given)][:parts]
    return Plan(items=12, drawn=5, seeds=dict.fromkeys(chosen, frozenset(range(seeds))))


def test_what_was_not_selected_never_gates() -> None:
    mine = over(2, expect={"tiny": REFUTED})
    made = parts([9.0, 9.0])
    whole = one(mine, made, plan=planned(mine))
    assert (whole.verdict, whole.expected, whole.outcome) == (SUPPORTED, REFUTED, Outcome.DIFFERS)
    some = one(mine, made, plan=planned(mine, parts=2))
    assert (some.verdict, some.expected, some.outcome) == (SUPPORTED, None, Outcome.NOTED)
    assert some.reason == some.elsewhere == "only 1 of 2 parts were selected: qa at 0.1"


def test_fewer_seeds_than_the_run_has_never_gate() -> None:
    mine = claim(expect={"tiny": REFUTED})
    made = pair(spread(mean=9.0))
    made.records = [record for record in made.records if record.seed < 2]
    found = one(mine, made, plan=planned(mine, seeds=2))
    assert (found.verdict, found.outcome) == (SUPPORTED, Outcome.NOTED)
    assert found.elsewhere == "only 2 of 5 seeds were selected"


def test_a_planned_cell_that_failed_is_missing() -> None:
    mine = claim(expect={"tiny": SUPPORTED})
    made = pair(spread(mean=9.0))
    made.records = [record for record in made.records if record.policy == "random"]
    found = one(mine, made, plan=planned(mine))
    assert (found.verdict, found.outcome) == (INCONCLUSIVE, Outcome.UNDECIDED)
    assert found.reason == "5 of 10 cells missing"


NOTHING = "the cells that it compares were not selected"


@pytest.mark.parametrize(
    ("changes", "installed", "session", "store"),
    [
        ({"policy": "sip"}, {"random"}, "sip is not installed", "sip is not installed"),
        (
            {"policy": "ada(sip)", "baseline": "sip"},
            {"random"},
            "ada and sip are not installed",
            "ada and sip are not installed",
        ),
        ({"policy": "sip"}, None, "no cells of sip were", "there are no records of sip"),
        (
            {"policy": "sip", "baseline": "lkv"},
            {"sip", "lkv"},
            "no cells of sip and lkv were selected",
            "there are no records of sip and lkv",
        ),
        ({"suites": ("needle",)}, None, NOTHING, "there are no records of needle"),
    ],
)
def test_why_a_claim_was_not_evaluated(
    changes: dict[str, Any], installed: set[str] | None, session: str, store: str
) -> None:
    mine = claim(**changes, expect={"tiny": SUPPORTED})
    selected = pair(0.0).evidence(plan=planned(claim()))
    places = [("needle", column) for column in columns(claim())]
    runs = {"snapkv": 5, "random": 5}
    plan = ReplayPlan(items=12, suites={"needle"}, drawn=runs, chosen=dict.fromkeys(places, ()))
    deselected = pair(0.0).evidence(plan=plan)
    for evidence, reason in ((selected, session), (deselected, store)):
        (found,) = judge([mine], evidence, installed=installed)
        assert found.verdict is Verdict.NOT_EVALUATED
        assert found.outcome is Outcome.NOTED
        assert found.reason.startswith(reason)
        assert found.parts == ()


# -- expectations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "expected", "outcome"),
    [
        (9.0, SUPPORTED, Outcome.AS_EXPECTED),
        (9.0, REFUTED, Outcome.DIFFERS),
        (9.0, INCONCLUSIVE, Outcome.DIFFERS),
        (-9.0, SUPPORTED, Outcome.DIFFERS),
        (0.0, SUPPORTED, Outcome.UNDECIDED),
        (0.0, INCONCLUSIVE, Outcome.AS_EXPECTED),
        (9.0, None, Outcome.NOTED),
    ],
)
def test_verdicts_beside_what_was_expected(
    mean: float, expected: Verdict | None, outcome: Outcome
) -> None:
    mine = claim(expect={"tiny": expected} if expected else {}, settings={"context": 1024})
    found = one(mine, pair(spread(mean=mean)))
    assert found.outcome is outcome
    assert found.surprising is (outcome in {Outcome.DIFFERS, Outcome.UNDECIDED})


def test_an_expectation_is_of_one_model() -> None:
    mine = claim(expect={"another": REFUTED})
    assert one(mine, pair(spread(mean=9.0))).outcome is Outcome.NOTED


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"context": 4096}, "established for context 4096 (here 1024)"),
        (
            {"question": "seen", "sinks": 8, "recents": 16},
            "established for question seen (here unseen), sinks 8 (here 4)",
        ),
    ],
)
def test_elsewhere_a_verdict_is_only_told(settings: dict[str, Any], told: str) -> None:
    found = one(claim(expect={"tiny": REFUTED}, settings=settings), pair(spread(mean=9.0)))
    assert (found.verdict, found.expected, found.outcome) == (SUPPORTED, None, Outcome.NOTED)
    assert found.elsewhere == told


def test_other_items_are_elsewhere_too() -> None:
    made = pair(spread(mean=9.0), data={"qa": "mine.jsonl"})
    found = one(claim(expect={"tiny": REFUTED}), made)
    assert found.outcome is Outcome.NOTED
    assert found.elsewhere == "established for generated items of qa (here mine.jsonl)"
    other = pair(spread(mean=9.0), data={"summarization": "mine.jsonl"})
    assert one(claim(expect={"tiny": REFUTED}), other).outcome is Outcome.DIFFERS


def test_judgements_come_in_the_order_of_the_claims() -> None:
    claims = [claim(id=name) for name in ("b", "a", "c")]
    found = judge(claims, pair(0.0).evidence())
    assert [each.claim.id for each in found] == ["b", "a", "c"]
