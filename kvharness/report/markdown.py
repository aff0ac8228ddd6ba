"""A summary in Markdown, for the summary page of a CI job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tabulate import tabulate

from kvharness.report import notation
from kvharness.report.charts.curves import curves
from kvharness.report.survey import Survey
from kvharness.report.tiles import title
from kvharness.report.verdicts import not_evaluated, shown
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement
    from kvharness.report.charts.curves import Curves
    from kvharness.report.verdicts import Shown

_SPECIAL = re.compile(r"([\\`*_\[\]|<>~#])")


def markdown(evidence: Evidence, judgements: Sequence[Judgement]) -> str:
    """The verdicts, then a table of scores for each suite."""
    survey = Survey.of(evidence)
    parts = [f"## {_escaped(title(survey))}", *_verdicts(judgements)]
    for chart in curves(survey, "score"):
        parts += _scores(survey, chart)
    if not survey.suites:
        parts.append("There are no records.")
    return "\n\n".join(parts) + "\n"


def _verdicts(judgements: Sequence[Judgement]) -> Iterator[str]:
    rows = [
        [
            _mark(each),
            each.judgement.claim.id,
            each.judgement.verdict.value,
            each.expected,
            _why(each),
        ]
        for each in shown(judgements)
    ]
    if rows:
        yield "### Claims"
        yield _table(["", "claim", "verdict", "expected", "what it says"], rows)
    silent = sum(map(len, not_evaluated(judgements).values()))
    if silent:
        yield f"{notation.count(silent, 'claim')} {Verdict.NOT_EVALUATED.value}."


def _mark(each: Shown) -> str:
    return "❗" if each.surprising else "✅" if each.judgement.expected else ""


def _why(each: Shown) -> str:
    said = each.judgement.claim.statement()
    return f"{said}; {each.judgement.reason}" if each.judgement.reason else said


def _scores(survey: Survey, chart: Curves) -> Iterator[str]:
    yield f"### {_escaped(chart.suite)}: {_escaped(chart.name)}"
    retentions = chart.retentions or ("",)
    rows = [
        [
            survey.label(policy),
            *(notation.mean(chart.means.get((policy, each))) for each in retentions),
        ]
        for policy in survey.policies
        if any((policy, each) in chart.means for each in retentions)
    ]
    heads = [f"keep {each}" if each else "all" for each in retentions]
    yield _table(["policy", *heads], rows)
    yield f"Mean with 95 % interval over {notation.count(chart.items, 'item')}."


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[_escaped(cell) for cell in row] for row in rows]
    table: str = tabulate(cells, headers=list(heads), tablefmt="github", disable_numparse=True)
    return table


def _escaped(text: str) -> str:
    """As it stands, whatever it is: in one line and without marking anything up."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
