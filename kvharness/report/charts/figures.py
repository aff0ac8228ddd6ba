"""Figures for papers, as PNG and PDF; matplotlib is imported when they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.report.charts.forest import forest
from kvharness.report.charts.significance import matrices
from kvharness.report.charts.style import save
from kvharness.report.survey import CHANCE, Survey
from kvharness.statistics.region import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement

    Judgements = Sequence[Judgement]

SIP = "sip"


def figures(evidence: Evidence, judgements: Sequence[Judgement], directory: Path) -> list[Path]:
    """Draw every figure that the records allow; `left_out` says why others are not drawn.

    Raises:
        UsageProblem: the directory cannot be written.
    """
    survey = Survey.of(evidence)
    missing = left_out(survey)
    return [
        path
        for name, draw in _FIGURES.items()
        if name not in missing
        for path in save(draw(survey, judgements), directory, name)
    ]


def left_out(survey: Survey) -> dict[str, str]:
    """The figures that these records cannot fill, and why."""
    alone = f"there are no records of {CHANCE} beside another policy"
    found = {}
    if not any(forest(survey, survey.scopes[0], metric) for metric in survey.metrics[:1]):
        found["forest_plot_ci"] = alone
    if len(survey.contenders) < 2:
        found["significance_matrix"] = "there are fewer than two policies beside the anchors"
    if SIP not in survey.policies:
        found["sip_vs_random"] = f"there are no records of {SIP}"
    elif CHANCE not in survey.policies:
        found["sip_vs_random"] = alone
    return found


def _forest_plot_ci(survey: Survey, _: Judgements) -> Figure:
    from kvharness.report.charts.plots import forest_plot  # noqa: PLC0415 - matplotlib

    drawn = [forest(survey, scope, survey.metrics[0]) for scope in survey.scopes]
    return forest_plot([each for each in drawn if each is not None])


def _significance_matrix(survey: Survey, _: Judgements) -> Figure:
    from kvharness.report.charts.plots import significance_plot  # noqa: PLC0415 - matplotlib

    return significance_plot(matrices(survey, survey.scopes[0], survey.metrics[0]))


def _sip_vs_random(survey: Survey, judgements: Judgements) -> Figure:
    from kvharness.report.charts.plots import pair_plot  # noqa: PLC0415 - matplotlib

    drawn = [forest(survey, scope, survey.metrics[0]) for scope in survey.scopes]
    shown = [each for each in drawn if each is not None]
    return pair_plot(shown, SIP, margin=_margin(judgements, survey.metrics[0]))


_FIGURES: dict[str, Callable[[Survey, Judgements], Figure]] = {
    "forest_plot_ci": _forest_plot_ci,
    "significance_matrix": _significance_matrix,
    "sip_vs_random": _sip_vs_random,
}


def _margin(judgements: Judgements, metric: str) -> float | None:
    """Of the claim that SIP is not better than random, where there is one in this metric."""
    for each in judgements:
        claim = each.claim
        pair = (claim.policy, claim.baseline, claim.metric)
        if claim.kind is Kind.NOT_BETTER and pair == (SIP, CHANCE, metric):
            return claim.margin
    return None
