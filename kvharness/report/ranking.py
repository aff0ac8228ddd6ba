"""Key findings: ranks, the best policy, and the one to take, for each retention."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

from kvharness.report.charts.significance import compared
from kvharness.report.difference import Relation
from kvharness.report.survey import CHANCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kvharness.report.charts.significance import Comparison, Values
    from kvharness.report.difference import Difference
    from kvharness.report.survey import Survey

#: The column that averages each item over the retentions that all policies were run at.
OVERALL = "all retentions"
RULE = (
    "Recommended: of the policies that are better than random, and worse than random on no suite "
    "(over all retentions: at none of them), "
    "take the best mean and those not shown to be worse than it; of these, the one that scores "
    "and selects fastest (median of all items). Comparisons are paired, two-sided at 5 %, "
    "Holm-corrected over the policies of a column."
)
RULE_WITHOUT_CHANCE = (
    "Recommended: take the best mean and the policies not shown to be worse than it (paired, "
    "two-sided at 5 %, Holm-corrected over the policies of a column); of these, the one that "
    "scores and selects fastest (median of all items). There are no records of random, so this "
    "does not say that any policy is better than chance."
)


def at(retention: str) -> str:
    """``keep 0.1``, and the overall column as it is."""
    return retention if retention == OVERALL else f"keep {retention}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A policy in one column.

    Attributes:
        mean: over the items of the scope.
        rank: 1 for the highest mean; equal means share one. None where the policy did not answer
            all items that others did, so that its mean is of something else.
        chance: against random; None for random itself and where there is no such pair.
    """

    policy: str
    mean: float
    units: int
    rank: int | None
    chance: Relation | None
    difference: Difference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A column of the table: one retention, or all of them."""

    retention: str
    standings: Mapping[str, Standing]
    best: str | None
    recommended: str | None
    reason: str


def findings(survey: Survey, scope: str, metric: str) -> list[Finding]:
    """One for each retention, and one over all where there are several."""
    several = len(survey.shared_retentions) > 1
    retentions = (*survey.retentions, *([OVERALL] if several else []))
    found = [_finding(survey, scope, metric, retention) for retention in retentions]
    return [finding for finding in found if finding.standings]


def best_first(found: Sequence[Finding]) -> list[str]:
    """Policies by their rank in the last column that has them; those without a rank last."""
    places = {
        standing.policy: (standing.rank is None, standing.rank or 0, standing.policy)
        for finding in found
        for standing in finding.standings.values()
    }
    return sorted(places, key=places.__getitem__)


def _finding(survey: Survey, scope: str, metric: str, retention: str) -> Finding:
    values = _values(survey, scope, metric, retention)
    standings = _standings(values)
    ranked = [each for each in standings.values() if each.rank is not None]
    best = min(ranked, key=lambda each: each.rank or 0, default=None)
    able, reason = _able(survey, scope, metric, retention, ranked)
    recommended = None
    if able:
        recommended, reason = _recommended(survey, retention, able, values)
    return Finding(
        retention=retention,
        standings=standings,
        best=None if best is None else best.policy,
        recommended=recommended,
        reason=reason,
    )


def _values(survey: Survey, scope: str, metric: str, retention: str) -> Values:
    values = {
        policy: survey.over_retentions(scope, policy, metric)
        if retention == OVERALL
        else survey.values(scope, policy, retention, metric)
        for policy in survey.contenders
    }
    return {policy: numbers for policy, numbers in values.items() if numbers}


def _standings(values: Values) -> dict[str, Standing]:
    items = set().union(*values.values())
    means = {policy: fmean(numbers.values()) for policy, numbers in values.items()}
    whole = {policy: mean for policy, mean in means.items() if len(values[policy]) == len(items)}
    chance = _against(CHANCE, values)
    return {
        policy: Standing(
            policy=policy,
            mean=mean,
            units=len(values[policy]),
            rank=1 + sum(each > mean for each in whole.values()) if policy in whole else None,
            chance=chance[policy].relation if policy in chance else None,
            difference=chance[policy].difference if policy in chance else None,
        )
        for policy, mean in means.items()
    }


def _against(other: str, values: Values) -> dict[str, Comparison]:
    """Every policy compared with one, corrected over all of them."""
    pairs = [(policy, other) for policy in values if policy != other]
    found = compared(values, pairs) if other in values else {}
    return {policy: comparison for (policy, _), comparison in found.items()}


def _able(
    survey: Survey, scope: str, metric: str, retention: str, ranked: Sequence[Standing]
) -> tuple[list[Standing], str]:
    """Those that beat random here and are nowhere worse than it, or why there are none."""
    if CHANCE not in survey.policies:
        return list(ranked), ""
    better = [each for each in ranked if each.chance is Relation.BETTER]
    if not better:
        return [], f"no policy is better than {CHANCE}"
    overall = retention == OVERALL
    worse = {
        policy
        for suite in {scope, *survey.parts(scope, metric)}
        # A mean over retentions hides a loss at one of them.
        for kept in {retention, *(survey.retentions if overall else ())}
        for policy, found in _against(CHANCE, _values(survey, suite, metric, kept)).items()
        if found.relation is Relation.WORSE
    }
    where = "on some suite at some retention" if overall else "on some suite"
    return (
        [each for each in better if each.policy not in worse],
        f"each that is better than {CHANCE} is worse {where}",
    )


def _recommended(
    survey: Survey, retention: str, able: Sequence[Standing], values: Values
) -> tuple[str, str]:
    """The fastest of those not shown to be worse than the best of them, and why it is."""
    best = max(able, key=lambda each: each.mean).policy
    others = _against(best, {each.policy: values[each.policy] for each in able})
    good = [best, *(p for p, found in others.items() if found.relation is not Relation.WORSE)]
    chosen = min(good, key=lambda policy: (select_seconds(survey, policy, retention), policy))
    if len(good) > 1:
        return chosen, f"fastest of {len(good)} not told apart"
    return chosen, "the only one that qualifies" if len(
        able
    ) == 1 else "clearly the best that qualifies"


def select_seconds(survey: Survey, policy: str, retention: str) -> float:
    """Median time to score and select, over all items."""
    retentions = survey.shared_retentions if retention == OVERALL else (retention,)
    seconds = [
        record.seconds.select for each in retentions for record in survey.records(policy, each)
    ]
    return median(seconds)
