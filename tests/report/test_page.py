from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

import pytest
from scipy import stats

from kvharness.claims.judge import judge
from kvharness.report.charts.forest import forest
from kvharness.report.charts.significance import matrices
from kvharness.report.page import page
from kvharness.report.survey import Survey
from kvharness.statistics.region import Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.records.record import Record
    from tests.report.conftest import Lab, Page

CONTENDERS = ["h2o", "keydiff", "knorm", "random", "snapkv"]
POLICIES = ["full", "floor", "oracle", *CONTENDERS]
RETENTIONS = ["0.1", "0.5"]
SUITES = {"needle": "exact", "qa": "exact", "summarization": "slot_accuracy"}


@pytest.fixture(scope="module")
def records(lab: Lab) -> list[Record]:
    return lab.records()


@pytest.fixture(scope="module")
def whole(lab: Lab, read: type[Page], records: list[Record]) -> Page:
    evidence = lab.evidence(records)
    claims = [lab.claim(), lab.claim(id="other", kind=Kind.NOT_BETTER, expect={})]
    claims.append(lab.claim(id="absent", policy="nobody"))
    return read(page(evidence, judge(claims, evidence), [lab.header]))


def minus(text: str) -> str:
    return text.replace("-", "−")  # noqa: RUF001


def recovered(
    records: Sequence[Record], suite: str, policy: str, retention: str
) -> dict[str, float]:
    """By item, from the raw nll."""
    nll: dict[str, dict[str, float]] = defaultdict(dict)
    for record in records:
        if record.suite == suite and record.retention in {None, retention}:
            nll[record.policy][record.item_digest] = record.metrics["nll"]
    floor, full = fmean(nll["floor"].values()), fmean(nll["full"].values())
    return {item: (floor - value) / (floor - full) for item, value in nll[policy].items()}


def differences(
    records: Sequence[Record], suites: Sequence[str], pair: tuple[str, str], retention: str
) -> list[float]:
    found = []
    for suite in suites:
        first, second = (recovered(records, suite, each, retention) for each in pair)
        found += [first[item] - second[item] for item in first]
    return found


def holm(p: list[float]) -> list[float]:
    adjusted = [0.0] * len(p)
    largest = 0.0
    for place, number in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - place) * p[number]))
        adjusted[number] = largest
    return adjusted


# -- numbers against a naive computation ----------------------------------------------------------


@pytest.mark.parametrize("scope", ["all suites", *SUITES])
def test_forest_estimates(whole: Page, records: list[Record], scope: str) -> None:
    suites = list(SUITES) if scope == "all suites" else [scope]
    shown = whole.rows("minus random in recovered", f", {scope}:")
    assert set(shown) == set(POLICIES) - {"full", "floor", "random"} | {"policy"}
    for policy in set(shown) - {"policy"}:
        for retention, text in zip(RETENTIONS, shown[policy], strict=True):
            values = differences(records, suites, (policy, "random"), retention)
            low, high = stats.ttest_1samp(values, 0).confidence_interval(0.9)
            assert text == minus(f"{fmean(values):+.2f} [{low:.2f}, {high:.2f}]")


def test_marks_are_filled_where_the_legend_says_so(lab: Lab, read: type[Page]) -> None:
    """Those of anchors too, which are hollow in every other chart."""
    quality = {**lab.quality, "oracle": 0.85, "keydiff": 0.9}
    records = type(lab)(quality=quality).records()
    survey = Survey.of(lab.evidence(records))
    rows = [
        row
        for metric in survey.metrics
        for scope in survey.scopes
        if (drawn := forest(survey, scope, metric)) is not None
        for facet in drawn.facets
        for row in facet.rows
        if not row.beyond
    ]
    assert any(row.clear for row in rows if row.policy == "oracle")
    html = page(lab.evidence(records), [], [lab.header])
    drawn_marks = [given.get("class") for tag, given in read(html).tags if tag == "path"]
    for name, clear in (("mark filled", True), ("mark hollow", False)):
        assert drawn_marks.count(name) == sum(row.clear is clear for row in rows)
    assert ".anchor .mark.filled{fill:var(--c)" in html


def test_whoever_knows_the_answers_is_marked_and_has_no_rank(lab: Lab, read: type[Page]) -> None:
    found = read(page(lab.knowing("keydiff").evidence(lab.records()), [], [lab.header]))
    first = [[row[0] for row in table if row] for table in found.tables.values()]
    assert sum("keydiff (oracle)" in names for names in first) > len(SUITES)
    assert not any("keydiff" in names for names in first)
    assert found.data["labels"] == {"keydiff": "keydiff (oracle)"}
    drawn = [given for _, given in found.tags if given.get("data-policy") == "keydiff"]
    series = [kinds for each in drawn if "series" in (kinds := str(each.get("class")).split())]
    assert series
    assert all("anchor" in kinds for kinds in series)
    tips = [tip for _, given in found.tags if (tip := given.get("data-tip")) and "keydiff" in tip]
    assert tips
    assert all("keydiff (oracle)" in tip for tip in tips)


@pytest.mark.parametrize("suite", SUITES)
def test_curves(whole: Page, records: list[Record], suite: str) -> None:
    shown = whole.rows(f"{suite}: mean {SUITES[suite]} with")
    for record_policy in POLICIES:
        for retention, text in zip(RETENTIONS, shown[record_policy], strict=True):
            values = [
                record.score
                for record in records
                if record.suite == suite
                and record.policy == record_policy
                and record.retention in {None, retention}
            ]
            mean, error = fmean(values), stats.sem(values)
            low, high = mean - stats.t.ppf(0.975, 23) * error, mean + stats.t.ppf(0.975, 23) * error
            assert text == minus(f"{mean:.2f} [{low:.2f}, {high:.2f}]").replace("−0.00", "0.00")  # noqa: RUF001


def test_ranks_and_the_best(whole: Page, records: list[Record]) -> None:
    shown = whole.rows("recovered, all suites (72 items of")
    for column, retention in enumerate(RETENTIONS):
        means = {
            policy: fmean(
                value
                for suite in SUITES
                for value in recovered(records, suite, policy, retention).values()
            )
            for policy in CONTENDERS
        }
        for policy in CONTENDERS:
            rank = 1 + sum(mean > means[policy] for mean in means.values())
            words = shown[policy][column].split()
            assert words[0] == str(rank)
            assert words[-1] == minus(f"{means[policy]:.2f}")
        assert shown["Best"][column] == max(means, key=means.__getitem__) == "keydiff"
    assert shown["h2o"][0].split()[0] == shown["knorm"][0].split()[0] == "2"


def test_significance_against_random(whole: Page, records: list[Record]) -> None:
    shown = whole.rows("recovered, all suites (72 items of")
    others = [policy for policy in CONTENDERS if policy != "random"]
    for column, retention in enumerate(RETENTIONS):
        values = [differences(records, list(SUITES), (p, "random"), retention) for p in others]
        adjusted = holm([stats.ttest_1samp(each, 0).pvalue for each in values])
        for policy, each, p in zip(others, values, adjusted, strict=True):
            sign = "·" if p > 0.05 else "▲" if fmean(each) > 0 else "▼"
            assert shown[policy][column].split()[1] == sign


def test_significance_of_all_pairs(lab: Lab, whole: Page, records: list[Record]) -> None:
    survey = Survey.of(lab.evidence(records))
    pairs = [(a, b) for n, a in enumerate(CONTENDERS) for b in CONTENDERS[n + 1 :]]
    for matrix in matrices(survey, "qa", "recovered"):
        values = [differences(records, ["qa"], pair, matrix.retention) for pair in pairs]
        raw = [stats.ttest_1samp(each, 0).pvalue if any(each) else 1.0 for each in values]
        for (first, second), each, p in zip(pairs, values, holm(raw), strict=True):
            expected = "undecided" if p > 0.05 else "better" if fmean(each) > 0 else "worse"
            assert matrix.relation(first, second) == expected
            mirrored = {"better": "worse", "worse": "better"}.get(expected, expected)
            assert matrix.relation(second, first) == mirrored
    cells = [given["class"] for tag, given in whole.tags if tag == "td" and "class" in given]
    assert {"better", "worse", "undecided", "self"} <= set(cells)


def test_recommended(whole: Page) -> None:
    shown = whole.rows("recovered, all suites (72 items of")
    # knorm and h2o are as good as each other, and no longer name means slower here.
    assert all(text.startswith("keydiff") for text in shown["Recommended"])


def test_costs(whole: Page, records: list[Record]) -> None:
    shown = whole.rows("Time to select")
    assert shown["keydiff"] == ["7.0", "0.10", "0.1000", "7.0", "0.50", "0.5000"]
    assert shown["full"] == ["4.0", "1.00", "1.0000"] * 2
    assert len(records) == 3 * 24 * (2 + 6 * 2)


def test_headroom(whole: Page, records: list[Record]) -> None:
    shown = whole.rows("the gap is paired")
    for suite in SUITES:
        scores = {
            policy: [r.score for r in records if r.suite == suite and r.policy == policy]
            for policy in ("full", "floor")
        }
        full, floor, gap, *oracle = shown[suite]
        assert full.startswith(minus(f"{fmean(scores['full']):.2f}"))
        assert floor.startswith(minus(f"{fmean(scores['floor']):.2f}"))
        assert gap.startswith(f"+{fmean(scores['full']) - fmean(scores['floor']):.2f}")
        assert len(oracle) == len(RETENTIONS)


def test_what_was_run(whole: Page) -> None:
    text = whole.text
    assert "tiny (made up); float32 on cpu" in text
    assert "context 1024, sinks 4, recents 16, question unseen, evict prefill" in text
    assert "2 seeds of 12 items in each suite; text generated for first questions" in text
    assert "1,008 records: 24 items of needle, 24 items of qa, 24 items of summarization" in text
    assert "a processor, a platform, 2 cores" in text
    assert "commit 0123456789, with changes that are not committed" in text
    shown = whole.rows("Where each policy's code is from")
    assert shown["keydiff"] == ["keydiff", "some-policies 1.2", "window 8", "feedbeef"]


# -- claims ---------------------------------------------------------------------------------------


def test_claims(whole: Page, records: list[Record]) -> None:
    shown = whole.rows("keydiff minus random in recovered, positive is better for keydiff", "items")
    values = differences(records, ["qa"], ("keydiff", "random"), "0.5")
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    difference, units, alone, settle = shown["qa at 0.5"]
    assert difference == f"{fmean(values):+.3f} [{low:.3f}, {high:.3f}]"
    assert (units, alone, settle) == ("24", "refuted", "–")  # noqa: RUF001 - the last table counts
    text = " ".join(whole.text.split())
    assert "supported keydiff is better than random, in recovered as expected" in text
    assert "refuted keydiff is not better than random, in recovered no expectation" in text
    assert "there are no records of nobody" in text
    assert "Somebody 2025, arXiv 2500.00000" in text
    assert "suites/claims.toml" in text
    assert "somewhere" not in text


def test_a_surprise_stands_first_and_open(
    lab: Lab, read: type[Page], records: list[Record]
) -> None:
    evidence = lab.evidence(records)
    claims = [lab.claim(), lab.claim(id="gone", expect={"tiny": Verdict.REFUTED})]
    found = read(page(evidence, judge(claims, evidence), [lab.header]))
    opened = [given for tag, given in found.tags if tag == "details" and "claim" in str(given)]
    assert ["open" in given for given in opened] == [True, False]
    assert "1 not as expected" in found.text


# -- the item explorer ----------------------------------------------------------------------------


def test_the_explorer_has_every_record(whole: Page, records: list[Record]) -> None:
    data = whole.data
    suites = {suite["name"]: suite for suite in data["suites"]}
    assert sum(len(suite["rows"]) for suite in suites.values()) == len(records)
    rows = {
        (name, suite["items"][row[0]][1], data["policies"][row[1]], row[2]): row
        for name, suite in suites.items()
        for row in suite["rows"]
    }
    for record in records:
        at = -1 if record.retention is None else data["retentions"].index(record.retention)
        row = rows[record.suite, record.item, record.policy, at]
        assert row[3:6] == pytest.approx(
            [record.score, record.evidence_kept, record.realised_retention], abs=1e-4
        )
        for shown, question in zip(row[6], record.questions, strict=True):
            numbers = [question.exact, question.slot_accuracy, question.nll, question.evidence_kept]
            assert shown[:4] == pytest.approx(numbers, abs=1e-4)
            assert data["texts"][shown[4]] == question.generated


def test_texts_are_stored_once(whole: Page) -> None:
    texts = whole.data["texts"]
    assert len(texts) == len(set(texts)) == 4 * len(POLICIES)


def test_a_question_without_text(lab: Lab, read: type[Page]) -> None:
    first = lab.records(["full"], suites=["needle"], seeds=1, items=1)[0]
    silent = replace(first.questions[0], generated=None, evidence_kept=None)
    record = replace(first, questions=(silent,), evidence_kept=None)
    data = read(page(lab.evidence([record]), [], [lab.header])).data
    assert data["suites"][0]["rows"][0][4] is None
    assert data["suites"][0]["rows"][0][6][0][3:] == [None, -1]


# -- hostile text ---------------------------------------------------------------------------------

HOSTILE = "</script><img src=x onerror=alert(1)><!-- ]]> & \u2028 \x00 \ud800 {{ 7 * 7 }}"


def test_nothing_that_is_said_becomes_markup(lab: Lab, read: type[Page]) -> None:
    records = [
        replace(
            record,
            policy={"snapkv": HOSTILE}.get(record.policy, record.policy),
            variant=HOSTILE,
            questions=(replace(record.questions[0], generated=HOSTILE),),
        )
        for record in lab.records(suites=["needle"])
    ]
    evidence = lab.evidence(records)
    claim = lab.claim(suites=("needle",), source=HOSTILE, why=HOSTILE, origin=HOSTILE, id=HOSTILE)
    settings = {**lab.header.settings, "model": {"name": HOSTILE, "note": HOSTILE}}
    header = replace(lab.header, settings=settings, versions={HOSTILE: HOSTILE})
    html = page(evidence, judge([claim], evidence), [header])
    found = read(html)
    tags = [tag for tag, _ in found.tags]
    assert "img" not in tags
    assert tags.count("script") == 2
    assert "49" not in {cell for row in found.rows("Time to select").values() for cell in row}
    assert found.data["texts"] == [HOSTILE]
    assert HOSTILE in found.data["policies"]
    assert not re.search(r"onerror=alert\(1\)>", found.scripts["data"])
    events = [name for _, given in found.tags for name in given if name.startswith("on")]
    assert not events


def test_the_page_needs_nothing_from_elsewhere(whole: Page) -> None:
    for tag, given in whole.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        assert not (set(given) & {"src", "srcset", "action", "ping"})
        assert str(given.get("href", "#")).startswith("#")
    (policy,) = [g["content"] for t, g in whole.tags if g.get("http-equiv")]
    assert policy is not None
    assert "default-src 'none'" in policy


# -- stores that lack something -------------------------------------------------------------------


def test_without_random(lab: Lab, read: type[Page]) -> None:
    records = lab.records(["full", "floor", "h2o", "keydiff"], suites=["qa"])
    found = read(page(lab.evidence(records), [], [lab.header]))
    assert "There are no records of random beside another policy" in found.text
    assert "does not say that any policy is better than chance" in found.text
    shown = found.rows("recovered, qa (24 items of qa)")
    assert [text.split()[0] for text in shown["Recommended"]] == ["keydiff"] * 3
    assert shown["keydiff"][0].split()[0] == "1"


def test_without_full(lab: Lab, read: type[Page]) -> None:
    records = lab.records(["floor", "h2o", "random"], suites=["needle"])
    found = read(page(lab.evidence(records), [], [lab.header]))
    assert "full or floor was not run" in found.text
    assert not any("recovered" in caption for caption in found.tables)
    assert "h2o" in found.rows("minus random in score")


def test_one_retention(lab: Lab, read: type[Page]) -> None:
    records = lab.records(retentions=["1_3"])
    found = read(page(lab.evidence(records), [], [lab.header]))
    shown = found.rows("recovered, all suites (72 items of")
    assert shown["policy"] == ["keep 1_3"]
    assert len(shown["keydiff"]) == 1


def test_one_item(lab: Lab, read: type[Page]) -> None:
    records = lab.records(suites=["needle"], seeds=1, items=1)
    found = read(page(lab.evidence(records), [], [lab.header]))
    shown = found.rows("score, needle (1 item of needle)")
    assert {row[0].split()[1] for name, row in shown.items() if name in CONTENDERS} <= {
        "·",
        "0.00",
        "1.00",
    }
    assert shown["Recommended"][0].startswith("none")


@pytest.mark.parametrize("policies", [["full"], ["full", "floor", "oracle"], ["random"], ["h2o"]])
def test_few_policies(lab: Lab, read: type[Page], policies: list[str]) -> None:
    found = read(page(lab.evidence(lab.records(policies)), [], []))
    assert "Fewer than two policies were run" in found.text


def test_nothing(lab: Lab, read: type[Page]) -> None:
    found = read(page(lab.empty(), [], []))
    assert "There are no records." in found.text
    nothing: dict[str, object] = {"policies": [], "retentions": [], "suites": [], "texts": []}
    assert found.data == {**nothing, "labels": {}}


def test_a_policy_that_did_not_answer_all_items_has_no_rank(lab: Lab, read: type[Page]) -> None:
    records = [
        record
        for record in lab.records(suites=["qa"])
        if record.policy != "keydiff" or record.seed == 0
    ]
    found = read(page(lab.evidence(records), [], [lab.header]))
    shown = found.rows("recovered, qa (24 items of qa)")
    assert shown["keydiff"][0].startswith("–")  # noqa: RUF001
    assert shown["Best"][0] != "keydiff"


def test_other_retentions_of_one_policy(lab: Lab, read: type[Page]) -> None:
    records = lab.records() + lab.records(["keydiff"], retentions=["0.03"])
    found = read(page(lab.evidence(records), [], [lab.header]))
    shown = found.rows("recovered, all suites (72 items of")
    assert shown["policy"] == ["keep 0.03", "keep 0.1", "keep 0.5", "all retentions"]
    assert shown["h2o"][0] == "–"  # noqa: RUF001
