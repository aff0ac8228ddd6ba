from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest

from kvharness.cli.main import main
from kvharness.records.masks import write_mask
from tests.claims.conftest import Made, pair, spread

if TYPE_CHECKING:
    from pathlib import Path

CLAIM = """
[[claim]]
id = "mine"
kind = "better"
policy = "snapkv"
baseline = "random"
suites = ["qa"]
retention = ["0.25"]
metric = "nll"
"""


class Compare(Protocol):
    def __call__(self, first: Made, second: Made, *arguments: str) -> tuple[int, str, str]: ...


@pytest.fixture
def compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    claims_file = tmp_path / "claims.toml"
    claims_file.write_text(CLAIM)

    def run(first: Made, second: Made, *arguments: str) -> tuple[int, str, str]:
        stores = [made.write(tmp_path / name) for made, name in ((first, "A"), (second, "B"))]
        code = main(["compare", *map(str, stores), f"--file={claims_file}", *arguments])
        captured = capsys.readouterr()
        return code, re.sub(" +", " ", captured.out), captured.err

    return run


def run(mean: float = 1.0, **settings: Any) -> Made:
    return pair(spread(mean=mean, sd=0.1), **settings)


def test_nothing_changed(compare: Compare) -> None:
    assert compare(run(), run()) == (
        0,
        (
            "120 records in both: 0 kept other entries; 0 of 2 shared cells differ surely "
            "(Holm, 5 %)\n"
            "where the same entries are kept, a difference comes from decoding\n"
            "0 verdicts changed\n"
        ),
        "",
    )


def test_cells_without_a_change_are_listed_on_request(compare: Compare) -> None:
    out = compare(run(), run(), "--all")[1]
    assert "\nqa random-r0.25 +0.000 [+0.000, +0.000] - 60 -\n" in out
    assert "\nqa snapkv-r0.25 +0.000 [+0.000, +0.000] - 60 -\n" in out


def test_another_verdict_and_the_cell_that_made_it(compare: Compare) -> None:
    code, out, _ = compare(run(), run(mean=-1.0))
    assert code == 0, "a change is news"
    assert "suite cell nll: B minus A, + is better [90 %] surely records masks changed\n" in out
    assert "\nqa snapkv-r0.25 -2.000 [-2.000, -2.000] yes 60 -\n" in out
    assert "random-r0.25" not in out
    assert out.endswith("1 verdicts changed\n mine: supported in A, refuted in B\n")


def test_cells_that_kept_other_entries(compare: Compare, tmp_path: Path) -> None:
    second = run()
    second.records[0] = replace(second.records[0], mask_digest=("new",))
    out = compare(run(), second)[1]
    assert "\nqa snapkv-r0.25 +0.000 [+0.000, +0.000] - 60 1\n" in out
    assert "120 records in both: 1 kept other entries; 0 of 2" in out
    mask = np.zeros((1, 1, 8), dtype=bool)
    mask[..., :4] = True
    write_mask(tmp_path / "A", "mask", mask)
    write_mask(tmp_path / "B", "new", np.roll(mask, 1))
    out = compare(run(), second)[1]
    assert "\nqa snapkv-r0.25 +0.000 [+0.000, +0.000] - 60 1, at least 75.00% of entries" in out


def test_what_was_run_with_other_settings_and_code(compare: Compare) -> None:
    policies = {name: {"source": "b"} for name in ("snapkv", "random")}
    out = compare(run(engine="a"), run(engine="b", policies=policies))[1]
    assert out.startswith(
        "engine: a in A, b in B\n"
        "random: other code or parameters\nsnapkv: other code or parameters\n"
    )


def test_what_only_one_store_has(compare: Compare) -> None:
    first = run()
    second = Made().run("snapkv", "0.25", nll=3)
    first.records = [each for each in first.records if each.seed or each.policy == "random"]
    out = compare(first, second)[1]
    assert "; 1 of 1 shared cells differ surely" in out
    assert "\n60 records only in A, 1 cells of them whole\n12 records only in B\n" in out
    assert "\n0 verdicts changed\nonly A has what these are judged on: mine\n" in out


def test_stores_without_a_shared_record(compare: Compare) -> None:
    out = compare(Made().run("snapkv", "0.25"), Made().run("random", "0.25"))[1]
    assert "A and B have no record of the same cell and item" in out
    assert (
        "\n60 records only in A, 1 cells of them whole\n"
        "60 records only in B, 1 cells of them whole\n"
    ) in out


def test_an_unknown_metric(compare: Compare) -> None:
    code, out, err = compare(run(), run(), "--metric=nil")
    assert (code, out) == (2, "")
    assert err.startswith("kvharness: --metric 'nil': expected one of exact, ")
    assert err.endswith("did you mean 'nll'?\n")


def test_a_store_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = run().write(tmp_path / "A")
    assert main(["compare", str(store), str(tmp_path / "B")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_whoever_knows_the_answers_is_marked(compare: Compare) -> None:
    first, second = (
        run(oracles=["cheat"]).run("cheat", "0.25", nll=spread(mean=mean, sd=0.1))
        for mean in (1.0, 2.0)
    )
    out = compare(first, second)[1]
    assert "\nqa cheat (oracle)-r0.25 -1.000" in out
