from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvharness.report.difference import Relation
from kvharness.report.ranking import OVERALL, best_first, findings
from kvharness.report.survey import ALL, Survey
from tests.report.conftest import SUITES

if TYPE_CHECKING:
    from kvharness.report.ranking import Finding
    from tests.report.conftest import Lab

ANCHORS = {"full": 1.0, "floor": 0.0}


def found(lab: Lab, **suites: dict[str, float]) -> Finding:
    """The finding at half the cache, where each policy has this quality on each suite."""
    records = [
        record
        for suite, quality in suites.items()
        for record in type(lab)(quality={**ANCHORS, **quality}).records(
            [*ANCHORS, *quality], retentions=["0.5"], suites=[suite]
        )
    ]
    scope = ALL if len(suites) > 1 else next(iter(suites))
    (finding,) = findings(Survey.of(lab.evidence(records)), scope, "recovered")
    return finding


def test_the_fastest_of_those_that_are_as_good(lab: Lab) -> None:
    # A longer name takes longer to select in these records.
    finding = found(lab, qa={"slow-one": 0.8, "h2o": 0.8, "bad": 0.6, "random": 0.4})
    assert (finding.recommended, finding.reason) == ("h2o", "fastest of 2 not told apart")
    assert finding.standings["slow-one"].rank == finding.standings["h2o"].rank == 1


def test_the_best_where_it_is_clearly_so(lab: Lab) -> None:
    finding = found(lab, qa={"good-but-slow": 0.9, "h2o": 0.6, "random": 0.4})
    assert finding.recommended == finding.best == "good-but-slow"
    assert finding.reason == "clearly the best that qualifies"


def test_nothing_where_nothing_beats_random(lab: Lab) -> None:
    finding = found(lab, qa={"a": 0.4, "b": 0.2, "random": 0.4})
    assert (finding.best, finding.recommended) == ("a", None)
    assert finding.reason == "no policy is better than random"


def test_not_what_is_worse_than_random_somewhere(lab: Lab) -> None:
    one_sided = {"one-sided": 0.95, "steady": 0.55, "random": 0.4}
    finding = found(lab, qa=one_sided, needle={**one_sided, "one-sided": 0.3})
    assert finding.best == "one-sided"
    assert finding.recommended == "steady"
    assert finding.reason == "the only one that qualifies"
    alone = found(lab, qa={**one_sided, "steady": 0.4}, needle={**one_sided, "one-sided": 0.3})
    assert alone.recommended in {None, "steady"}


def test_none_is_left(lab: Lab) -> None:
    quality = {"one-sided": 0.95, "random": 0.4}
    finding = found(lab, qa=quality, needle={**quality, "one-sided": 0.3})
    assert finding.recommended is None
    assert finding.reason == "each that is better than random is worse on some suite"


def over_retentions(lab: Lab, few: float, many: float) -> list[Finding]:
    """The findings of a policy with these qualities at 0.1 and 0.5, where random has 0.5."""
    records = [
        record
        for retention, quality in (("0.1", few), ("0.5", many))
        for record in type(lab)(quality={**ANCHORS, "mixed": quality, "random": 0.5}).records(
            ["mixed", "random", *(ANCHORS if retention == "0.5" else ())],
            retentions=[retention],
            suites=["qa"],
        )
    ]
    return findings(Survey.of(lab.evidence(records)), "qa", "recovered")


def test_a_mean_over_retentions_hides_no_loss_at_one_of_them(lab: Lab) -> None:
    first, second, overall = over_retentions(lab, few=1.6, many=0.3)
    assert (first.recommended, second.recommended) == ("mixed", None)
    assert overall.standings["mixed"].chance is Relation.BETTER
    assert overall.recommended is None
    assert overall.reason == (
        "each that is better than random is worse on some suite at some retention"
    )
    assert over_retentions(lab, few=1.6, many=0.6)[-1].recommended == "mixed"


def test_a_policy_of_one_claim_leaves_the_mean_over_retentions_to_the_others(lab: Lab) -> None:
    extra = type(lab)(quality={"oracle": 1.0, "ablated": 0.9, "h2o": 0.7})
    brought = extra.records(["ablated", "h2o"], retentions=["0.25"], suites=[*SUITES])
    survey = Survey.of(lab.evidence([*lab.records(), *brought]))
    assert survey.retentions == ("0.1", "0.25", "0.5")
    assert survey.shared_retentions == ("0.1", "0.5")
    overall = findings(survey, ALL, "recovered")[-1]
    assert overall.retention == OVERALL
    assert "ablated" not in overall.standings
    assert "keydiff" in overall.standings


def test_rows_stand_in_the_order_of_the_last_column(lab: Lab) -> None:
    survey = Survey.of(lab.evidence(lab.records()))
    shown = findings(survey, ALL, "recovered")
    assert [finding.retention for finding in shown] == ["0.1", "0.5", OVERALL]
    order = best_first(shown)
    assert order[0] == "keydiff"
    assert order[-1] == "snapkv"
    means = [shown[-1].standings[policy].mean for policy in order]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize("metric", ["recovered", "score"])
def test_only_anchors(lab: Lab, metric: str) -> None:
    survey = Survey.of(lab.evidence(lab.records(["full", "floor", "oracle"])))
    assert findings(survey, ALL, metric) == []


def test_whoever_knows_the_answers_has_no_rank(lab: Lab) -> None:
    survey = Survey.of(lab.knowing("keydiff").evidence(lab.records()))
    assert "keydiff" not in survey.contenders
    shown = findings(survey, ALL, "recovered")
    assert all("keydiff" not in finding.standings for finding in shown)
    assert best_first(shown)[0] != "keydiff"
