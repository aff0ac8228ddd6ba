"""What goes wrong in one group is told by its cells; the other groups are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kvharness.run.items import Supply

if TYPE_CHECKING:
    from kvharness.cell import Group
    from tests.plugin.conftest import Lab


def test_a_fault_in_one_group_leaves_the_others_alone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Supply.items

    def items(self: Supply, group: Group) -> Any:
        if group.seed == 1:
            raise RuntimeError("out of luck\nand of memory")
        return real(self, group)

    monkeypatch.setattr(Supply, "items", items)
    result = lab.run("-rf")
    result.assert_outcomes(passed=4, failed=4)
    text = str(result.stdout)
    assert text.count("Traceback (most recent call last)") == 1, "told once, not in each cell"
    assert text.count("a fault in kvharness: RuntimeError: out of luck; ") >= 4
    assert {record.seed for record in lab.records()} == {0}


def test_data_that_cannot_be_used_fails_the_cells_that_need_it(lab: Lab) -> None:
    (lab.folder / "qa.jsonl").write_text('{"neither": "question nor context"}\n')
    result = lab.run("suites/test_qa.py", "--kv-data=qa=qa.jsonl", "--kv-seeds=1")
    assert result.parseoutcomes()["failed"] == 4
    assert "qa.jsonl: the columns are" in str(result.stdout)
    assert "Traceback" not in str(result.stdout)
    assert lab.records() == []


def test_a_test_may_ask_more_of_its_cell(lab: Lab) -> None:
    (lab.folder / "test_mine.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def kept(kv_result):\n"
        "    return [record.realised_retention for record in kv_result.records]\n"
        "@pytest.mark.kv_suite('needle')\n"
        "def test_mine(kv_result, kept):\n"
        "    assert kept == [0.25, 0.25]\n"
    )
    result = lab.run("test_mine.py", "--kv-seeds=1")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["E*assert ?1.0, 1.0? == ?0.25, 0.25?"])


def test_an_interrupt_inside_a_policy_ends_the_run_with_its_name(lab: Lab) -> None:
    source = "def score(view):\n    raise KeyboardInterrupt\n"
    lab.install("stops-kv", {"stops": "stops_kv:score"}, stops_kv=source)
    result = lab.run("--policy=stops", "--kv-seeds=1")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["!* KeyboardInterrupt: policy 'stops' was running *py:2) !*"])
