from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kvharness.errors import StoreProblem, UsageProblem
from kvharness.plugin.replayed import Replayed
from tests.claims.conftest import CONTRACT, pair
from tests.run.test_settings import settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Five seeds of `snapkv` and `random`."""
    pair(0.0, contract={**CONTRACT, "context": 400}, options={"--kv-dtype": "x"}).write(tmp_path)
    return tmp_path


def replayed(store: Path, **raw: Any) -> Replayed:
    return Replayed(store, settings(kv_replay=str(store), **raw))


def test_cells_and_results_are_those_of_the_store(store: Path) -> None:
    source = replayed(store, policy=["snapkv"], kv_seeds="2")
    cells = source.cells("qa")
    # The claims about snapkv compare it with random.
    assert {cell.policy for cell in cells} == {"random", "snapkv"}
    assert {cell.seed for cell in cells} == {0, 1}
    result = source.result(cells[0])
    assert (len(result.records), result.expected, result.contract.context) == (12, 12, 400)
    assert (source.failure(cells[0]), source.lack(cells[0])) == ("", "")
    assert source.tallies(cells[0]) == []
    assert source.options == {"--kv-dtype": "x"}


def test_its_title_is_about_the_store(store: Path) -> None:
    source = replayed(store)
    (cell, *_) = source.cells("qa")
    (line,) = source.title({cell.group: [cell]})
    assert line == (
        f"kvharness: 1 cells in 1 groups of 12 items; tiny, context 400, question unseen; "
        f"replay of {store}"
    )
    (lost,) = source.title({})
    assert lost.startswith(f"kvharness: {store} has records of qa, of which no test was collected")


def test_what_cannot_be_read_is_in_the_title(store: Path) -> None:
    (store / "junk.jsonl.xz").write_bytes(b"junk")
    source = replayed(store)
    (cell, *_) = source.cells("qa")
    _, unread = source.title({cell.group: [cell]})
    assert "'junk.jsonl.xz': damaged or not an xz file" in unread


def test_before_it_nothing_is_foretold(store: Path) -> None:
    source = replayed(store)
    cells = source.cells("qa")
    assert source.gate.claims
    assert source.outlook({cell.group: cells for cell in cells}) == []


def test_it_holds_no_budget_of_its_own(store: Path) -> None:
    with pytest.raises(StoreProblem, match="no record is of --kv-context=9; there are some of"):
        replayed(store, kv_context="9")


def test_it_has_the_items_of_its_store(store: Path) -> None:
    with pytest.raises(UsageProblem, match=r"--kv-data qa=f.jsonl: a replay has the items of its"):
        replayed(store, kv_data=["qa=f.jsonl"])
