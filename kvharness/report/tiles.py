"""The head of a page: its title, what it is about, and what came out, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.claims.judgement import Outcome
from kvharness.contract import QuestionMode
from kvharness.report import notation
from kvharness.report.ranking import at, findings
from kvharness.report.verdicts import counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.claims.judgement import Judgement
    from kvharness.report.headroom import Headroom
    from kvharness.report.survey import Survey

#: What is in the cache at that time.
_SEEN = {
    QuestionMode.UNSEEN: "the question is unseen",
    QuestionMode.SEEN: "the question is seen",
    QuestionMode.PROMPT: "the whole prompt is in it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A number with its name; ``tone`` is ``good``, ``warn`` or empty."""

    name: str
    value: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    note: str = ""
    tone: str = ""


def title(survey: Survey) -> str:
    """``smollm2-135m: 10 policies, keep 0.1 to 0.75``."""
    policies = len(survey.contenders)
    counted = "1 policy" if policies == 1 else f"{policies} policies"
    kept = survey.retentions
    at = f", keep {kept[0]}" if kept else ""
    to = f" to {kept[-1]}" if len(kept) > 1 else ""
    return f"{survey.evidence.model}: {counted}{at}{to}"


def lead(survey: Survey) -> str:
    """What was compared, in a sentence."""
    if not survey.suites:
        return "There are no records."
    contract = survey.evidence.contract
    question = _SEEN[QuestionMode(str(contract.get("question", QuestionMode.UNSEEN)))]
    context = contract.get("context")
    told = f", {context:,} tokens of context" if isinstance(context, int) else ""
    items = notation.count(sum(map(survey.items, survey.suites)), "item")
    return (
        f"Every policy answers the same {items} of {', '.join(survey.suites)}{told}, from a cache "
        f"that keeps the same number of entries; {question} when it is compressed."
    )


def tiles(survey: Survey, judgements: Sequence[Judgement], rooms: Sequence[Headroom]) -> list[Tile]:
    """Findings first."""
    return [*_recommended(survey), *_claims(judgements), *_rooms(rooms)]


def _recommended(survey: Survey) -> list[Tile]:
    if not survey.metrics:
        return []
    scope, metric = survey.scopes[0], survey.metrics[0]
    found = findings(survey, scope, metric)
    if not found:
        return []
    *rows, last = found
    return [
        Tile(
            name=f"Recommended, {at(last.retention)}, {scope}",
            value=last.recommended or "none",
            rows=tuple((at(each.retention), each.recommended or "none") for each in rows),
            note=f"by {metric}; rule and ranks under key findings",
        )
    ]


def _claims(judgements: Sequence[Judgement]) -> list[Tile]:
    if not judgements:
        return []
    surprising = sum(each.outcome in {Outcome.DIFFERS, Outcome.UNDECIDED} for each in judgements)
    expected = sum(each.outcome is Outcome.AS_EXPECTED for each in judgements)
    told = ", ".join(f"{number} {name}" for name, number in counts(judgements))
    if surprising:
        value, tone = f"{surprising} not as expected", "warn"
    elif expected:
        value, tone = f"{expected} as expected", "good"
    else:
        value, tone = "no expectation recorded", ""
    return [Tile(name=notation.count(len(judgements), "claim"), value=value, note=told, tone=tone)]


def _rooms(rooms: Sequence[Headroom]) -> list[Tile]:
    if not rooms:
        return []
    able = [room.suite for room in rooms if room.judges]
    unable = [room.suite for room in rooms if not room.judges]
    return [
        Tile(
            name="Suites that can tell policies apart",
            value=f"{len(able)} of {len(rooms)}",
            note=f"not {', '.join(unable)}" if unable else ", ".join(able),
            tone="warn" if unable else "",
        )
    ]
