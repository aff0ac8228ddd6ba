from __future__ import annotations

import re
from statistics import fmean
from typing import TYPE_CHECKING

import pytest
from scipy import stats

if TYPE_CHECKING:
    from tests.plugin.conftest import Finished, Lab


def table(text: str, heading: str) -> dict[str, list[str]]:
    """The rows of the first table whose head begins with a word, by policy."""
    lines = iter(text.splitlines())
    for line in lines:
        if re.match(rf"{heading} +keep ", line):
            break
    next(lines)
    rows: dict[str, list[str]] = {}
    for line in lines:
        if not line.strip():
            break
        policy, *cells = re.split(r"  +", line.strip())
        rows[policy] = cells
    return rows


def test_every_table_has_its_anchors_and_a_column_for_each_retention(whole: Finished) -> None:
    whole.result.assert_outcomes(passed=16)
    for heading in ("exact", "nll"):
        rows = table(whole.text, heading)
        assert list(rows) == ["full", "floor", "oracle", "random", "snapkv"]
        assert all(len(cells) == 2 for cells in rows.values())
        assert rows["full"][0] == rows["full"][1], "full does not depend on the retention"
    assert re.search(r"^exact +keep 0\.25 +keep 0\.5$", whole.text, re.MULTILINE)
    assert "with 95 % intervals over 4 items" in whole.text


def test_the_numbers_are_those_of_the_store(whole: Finished) -> None:
    for policy, text in (("snapkv", "0.5"), ("full", None)):
        found = [r for r in whole.lab.records() if (r.policy, r.retention) == (policy, text)]
        values = [record.metrics["nll"] for record in found]
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        expected = f"{fmean(values):.2f} ±{(high - low) / 2:.2f}"
        assert table(whole.text, "nll")[policy][-1] == expected


def test_the_run_is_described_once(whole: Finished) -> None:
    described = [line for line in whole.result.outlines if line.startswith("model ")]
    contract = "context 400, sinks 4, recents 16, question unseen, evict prefill"
    assert described == [f"model tiny, float32 on cpu; {contract}"]
    assert sum(line.strip("=") == " kvharness " for line in whole.result.outlines) == 1


def test_costs_are_given_as_realised_not_as_asked_for(whole: Finished) -> None:
    rows = table(whole.text, "policy")
    assert rows["full"][0].startswith("1.0000 ")
    assert rows["floor"][0].startswith("0.0500 "), "20 of 400 tokens"
    assert [cell.split()[0] for cell in rows["snapkv"]] == ["0.2500", "0.5000"]


def test_a_model_that_cannot_do_the_task_is_warned_about(whole: Finished) -> None:
    assert "WARNING needle: the full cache scores only 0.00" in whole.text
    assert "WARNING needle: no headroom: full 0.00" in whole.text


def test_one_item_has_no_interval(lab: Lab) -> None:
    result = lab.run("--kv-seeds=1", "--kv-items=1")
    text = str(result.stdout)
    assert "over 1 items" in text
    assert "±" not in text
    assert "no headroom" in text


def test_only_what_was_selected_is_shown(lab: Lab) -> None:
    result = lab.run("--kv-seeds=1", "--retention=0.25,0.5", "-ksnapkv-r0.5 or full")
    rows = table(str(result.stdout), "nll")
    assert list(rows) == ["full", "snapkv"]
    assert all(len(cells) == 1 for cells in rows.values())
    result = lab.run("--kv-seeds=1", "-kfull")
    assert re.search(r"^nll +keep all$", str(result.stdout), re.MULTILINE)


@pytest.mark.parametrize("suite", ["qa", "summarization"])
def test_other_suites_and_a_seen_question(lab: Lab, suite: str) -> None:
    """Questions differ in length, so the entries kept of a context do too."""
    result = lab.run(
        f"suites/test_{suite}.py", "--kv-question=seen", "--retention=0.25,1/3", "--kv-seeds=1"
    )
    result.assert_outcomes(passed=6, deselected=result.parseoutcomes().get("deselected", 0))
    assert "question seen" in str(result.stdout)
    score = "slot_accuracy" if suite == "summarization" else "exact"
    assert re.search(rf"^{score} +keep 0\.25 +keep 1_3$", str(result.stdout), re.MULTILINE)
