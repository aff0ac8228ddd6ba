"""The report as one HTML page, which needs no network, server or model."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kvharness.report import notation
from kvharness.report.charts.curves import METRICS, curves
from kvharness.report.charts.figures import left_out
from kvharness.report.charts.forest import forest
from kvharness.report.charts.palette import GREY, HUES, looks
from kvharness.report.charts.scatter import scatters
from kvharness.report.charts.significance import matrices
from kvharness.report.costs import costs
from kvharness.report.explorer import explorer, script_text
from kvharness.report.headroom import headrooms
from kvharness.report.origin import facts, sources
from kvharness.report.ranking import RULE, RULE_WITHOUT_CHANCE, at, best_first, findings
from kvharness.report.survey import CHANCE, Survey
from kvharness.report.tiles import lead, tiles, title
from kvharness.report.verdicts import cited, not_evaluated, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement
    from kvharness.records.header import Header

_PACKAGE, _FOLDER = "kvharness.report", "templates"
_SIGNS = {"better": "▲", "worse": "▼", "undecided": "·"}
_VERSUS = {
    "better": " better than random",
    "worse": " worse than random",
    "undecided": " undecided against random",
}
_SECTIONS = (
    ("run", "What was run"),
    ("headroom", "Headroom"),
    ("curves", "Curves"),
    ("forest", "Against random"),
    ("matrix", "Significance"),
    ("findings", "Key findings"),
    ("evidence", "Evidence"),
    ("costs", "Costs"),
    ("claims", "Claims"),
    ("items", "Outputs"),
    ("sources", "Sources"),
)


def page(evidence: Evidence, judgements: Sequence[Judgement], headers: Sequence[Header]) -> str:
    """The whole page; everything that records, claims and headers say is escaped."""
    survey = Survey.of(evidence)
    context = _frame(survey) | _charts(survey) | _told(survey, judgements, headers)
    return _environment().get_template("page.html").render(context)


def _frame(survey: Survey) -> dict[str, Any]:
    script = _text("page.js") + _text("explorer.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "survey": survey,
        "title": title(survey),
        "lead": lead(survey),
        "sections": _SECTIONS,
        "looks": looks(survey.policies, survey.evidence.oracles),
        "hues": HUES,
        "grey": GREY,
        "signs": _SIGNS,
        "versus": _VERSUS,
        # These are the package's own files; the page's policy allows no script but this one.
        "style": Markup(_text("page.css")),  # noqa: S704
        "script": Markup(script),  # noqa: S704
        "script_hash": f"sha256-{digest}",
        "data": Markup(script_text(explorer(survey))),  # noqa: S704 - it has no <, > and &
    }


def _charts(survey: Survey) -> dict[str, Any]:
    pairs = [(metric, scope) for metric in survey.metrics for scope in survey.scopes]
    forests = [forest(survey, scope, metric) for metric, scope in pairs]
    tables = [(metric, scope, matrices(survey, scope, metric)) for metric, scope in pairs]
    ranked = [(metric, scope, findings(survey, scope, metric)) for metric, scope in pairs]
    drawn = {metric: curves(survey, metric) for metric in METRICS}
    return {
        "curves": {metric: charts for metric, charts in drawn.items() if charts},
        "forests": [each for each in forests if each is not None],
        "matrices": [each for each in tables if each[2]],
        "findings": [each for each in ranked if each[2]],
        "rule": RULE if CHANCE in survey.policies else RULE_WITHOUT_CHANCE,
        "scatters": scatters(survey),
        "costs": costs(survey),
    }


def _told(
    survey: Survey, judgements: Sequence[Judgement], headers: Sequence[Header]
) -> dict[str, Any]:
    rooms, silent = headrooms(survey), not_evaluated(judgements)
    return {
        "facts": facts(survey, headers),
        "rooms": rooms,
        "tiles": tiles(survey, judgements, rooms),
        "claims": shown(judgements),
        "not_evaluated": silent,
        "not_evaluated_count": notation.count(sum(map(len, silent.values())), "claim"),
        "cited": cited(judgements),
        "packages": sources(survey, headers),
        "left_out": left_out(survey),
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE, _FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": notation.count,
        "number": notation.number,
        "signed": notation.signed,
        "mean": notation.mean,
        "difference": notation.difference,
        "p_value": notation.p_value,
        "milliseconds": notation.milliseconds,
        "clip": _clip,
        "slug": _slug,
        "at": at,
        "best_first": best_first,
    }
    return environment


def _text(name: str) -> str:
    # As an HTML parser reads it, since the digest is of what it reads.
    text = resources.files(_PACKAGE).joinpath(_FOLDER, name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _clip(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z]+", "-", text)
