from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from kvharness.claims.judge import judge
from kvharness.report.markdown import markdown
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    from tests.report.conftest import Lab


def cells(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_verdicts_come_first(lab: Lab) -> None:
    evidence = lab.evidence(lab.records())
    claims = [
        lab.claim(),
        lab.claim(id="gone", expect={"tiny": Verdict.REFUTED}),
        lab.claim(id="unknown", expect={}),
        lab.claim(id="absent", policy="nobody"),
    ]
    text = markdown(evidence, judge(claims, evidence))
    rows = [line for line in text.splitlines() if "keydiff is better than random" in line]
    assert [line.split("|")[1].strip() for line in rows] == ["❗", "✅", ""]
    assert [line.split("|")[2].strip() for line in rows] == [
        "gone",
        "keydiff-better-than-random",
        "unknown",
    ]
    assert "1 claim not evaluated." in text
    assert text.index("### Claims") < text.index("### needle: exact")


def test_scores_of_each_suite(lab: Lab) -> None:
    records = lab.records(suites=["needle", "summarization"])
    text = markdown(lab.evidence(records), [])
    assert "### Claims" not in text
    parts = text.split("### ")[1:]
    assert [part.partition("\n")[0] for part in parts] == [
        "needle: exact",
        "summarization: slot\\_accuracy",
    ]
    for suite, part in zip(("needle", "summarization"), parts, strict=True):
        mean = fmean(
            record.score
            for record in records
            if (record.suite, record.policy, record.retention) == (suite, "h2o", "0.5")
        )
        assert cells(part, "h2o")[2].startswith(f"{mean:.2f} ")
        assert "Mean with 95 % interval over 24 items." in part


def test_whoever_knows_the_answers_is_marked(lab: Lab) -> None:
    text = markdown(lab.knowing("keydiff").evidence(lab.records()), [])
    assert "| keydiff (oracle) |" in text
    assert "| keydiff  " not in text
    assert "| oracle  " in text


def test_nothing_is_marked_up_by_what_is_said(lab: Lab) -> None:
    name = "a|b <img src=x> *c* [d](e) `f`\ng"
    records = [replace(record, policy=name) for record in lab.records(["h2o"], suites=["qa"])]
    text = markdown(lab.evidence(records), [])
    assert "a\\|b \\<img src=x\\> \\*c\\* \\[d\\](e) \\`f\\` g" in text


def test_no_records(lab: Lab) -> None:
    assert "There are no records." in markdown(lab.empty(), [])
