from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.cell import Group
from kvharness.plugin.workers import (
    auto_workers,
    group_scheduler,
    in_shard,
    mentions_cells,
    pin_worker,
    visible_gpus,
)

if TYPE_CHECKING:
    from pathlib import Path

GROUPS = st.lists(
    st.builds(Group, st.sampled_from(["needle", "qa", "summarization"]), st.integers(0, 30)),
    unique=True,
)


def a_worker(name: str | None) -> pytest.Config:
    stub = SimpleNamespace(workerinput={"workerid": name}) if name else SimpleNamespace()
    return cast("pytest.Config", stub)


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [
        ("", []),
        ("-1", []),
        ("0", ["0"]),
        ("3,7", ["3", "7"]),
        (" 3 , 7 ,", ["3", "7"]),
        ("GPU-8f2a,MIG-1c", ["GPU-8f2a", "MIG-1c"]),
    ],
)
def test_visible_gpus_are_the_callers(chosen: str, gpus: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": chosen}) == gpus


def test_without_the_variable_the_driver_is_asked() -> None:
    assert all(name.isdigit() for name in visible_gpus({}))


def test_auto_is_a_worker_for_each_gpu_or_what_cores_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7,9")
    assert auto_workers() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert 1 <= auto_workers() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 10**6)
    assert auto_workers() < 10**6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert auto_workers() == 1


@pytest.mark.parametrize(
    ("worker", "chosen", "pinned"),
    [
        ("gw0", "3,7", "3"),
        ("gw1", "3,7", "7"),
        ("gw2", "3,7", "3"),
        ("gw11", "0,1,2", "2"),
        (None, "3,7", "3,7"),
        ("gw1", "", ""),
    ],
)
def test_a_worker_is_given_one_of_the_callers_gpus(
    monkeypatch: pytest.MonkeyPatch, worker: str | None, chosen: str, pinned: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    pin_worker(a_worker(worker))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == pinned
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE", "what the caller chose stays"


def test_idle_threads_of_a_worker_give_way_and_nothing_changes_in_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    pin_worker(a_worker(None))
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.setenv("OMP_WAIT_POLICY", "to be restored")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    pin_worker(a_worker("gw0"))
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_cells_of_a_group_are_one_unit_of_work(pytester: pytest.Pytester) -> None:
    scheduler = group_scheduler(pytester.parseconfig("--tx=2*popen"), None)
    scopes = {
        nodeid: scheduler._split_scope(nodeid)
        for nodeid in (
            "suites/test_qa.py::test_qa[full-s0]",
            "suites/test_qa.py::test_qa[snapkv+window8-r0.25-s0]",
            "suites/test_qa.py::test_qa[snapkv-r0.25-s10]",
            "suites/test_qa.py::test_qa[snapkv-r0.25-s1]",
            "suites/test_needle.py::test_needle[snapkv-r0.25-s1]",
            "tests/test_mine.py::test_mine",
            "tests/test_mine.py::test_mine[7]",
        )
    }
    assert list(scopes.values()) == [
        "suites/test_qa.py::test_qa-s0",
        "suites/test_qa.py::test_qa-s0",
        "suites/test_qa.py::test_qa-s10",
        "suites/test_qa.py::test_qa-s1",
        "suites/test_needle.py::test_needle-s1",
        "tests/test_mine.py::test_mine",
        "tests/test_mine.py::test_mine[7]",
    ]


class Node:
    """An xdist worker that notes what it is told to run."""

    def __init__(self) -> None:
        self.gateway = SimpleNamespace(id="gw")
        self.shutting_down = False
        self.told: list[list[int]] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.told.append(indices)

    def shutdown(self) -> None:
        self.shutting_down = True


def test_what_a_crashed_worker_had_finished_is_not_handed_out_again(
    pytester: pytest.Pytester,
) -> None:
    ids = [f"test_qa.py::test_qa[{name}-s{seed}]" for seed in (0, 1) for name in ("full", "floor")]
    scheduler = group_scheduler(pytester.parseconfig("--tx=popen"), None)
    first, second = Node(), Node()
    scheduler.add_node(first)
    scheduler.add_node_collection(first, ids)
    scheduler.schedule()
    for index in (0, 1):
        scheduler.mark_test_complete(first, index)
    assert first.told == [[0, 1], [2, 3]]
    assert scheduler.remove_node(first) == ids[2], "it died in the second group"
    scheduler.add_node(second)
    scheduler.add_node_collection(second, ids)
    scheduler.schedule()
    assert second.told == [[2, 3]]


CELLS_ARE_MEANT = [
    "cells",
    "cells/test_cells.py",
    "cells/test_cells.py::test_cells[full-s0]",
    "plain cells",
    "--pyargs kvharness.suites",
    "--pyargs kvharness.suites.test_needle",
]
OTHERS_ARE_MEANT = [
    "plain",
    "plain/test_plain.py::test_plain",
    "missing missing/test_x.py",
    "kvharness.suites",
    "--pyargs json",
]


@pytest.mark.parametrize("arguments", [*CELLS_ARE_MEANT, *OTHERS_ARE_MEANT])
def test_which_runs_are_about_cells(pytester: pytest.Pytester, arguments: str) -> None:
    for folder, text in (("cells", "@pytest.mark.kv_suite('qa')"), ("plain", "x = 1")):
        where: Path = pytester.mkdir(folder)
        (where / f"test_{folder}.py").write_text(text)
    (pytester.path / "plain" / "test_binary.py").write_bytes(b"\xff\xfe")
    config = pytester.parseconfig(*arguments.split())
    assert mentions_cells(config) is (arguments in CELLS_ARE_MEANT)


@given(GROUPS, st.integers(1, 12), st.randoms())
def test_shards_are_disjoint_complete_and_even(
    groups: list[Group], count: int, rng: object
) -> None:
    shuffled = list(groups)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    shards = [
        {group for group in groups if in_shard(group, order, (index, count))}
        for index in range(1, count + 1)
        for order in [shuffled if index % 2 else groups]
    ]
    assert sum(len(shard) for shard in shards) == len(groups)
    assert set().union(*shards) == set(groups)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
