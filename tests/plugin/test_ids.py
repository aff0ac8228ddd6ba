from __future__ import annotations

import importlib.metadata
import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing import Any

    from tests.plugin.conftest import Lab, MakeLab


@pytest.fixture(scope="module")
def grid(make_lab: MakeLab) -> Lab:
    """Collecting changes nothing, so one folder serves all."""
    return make_lab()


def test_an_id_names_policy_retention_and_seed_and_anchors_come_first(grid: Lab) -> None:
    assert grid.collect("--retention=0.25,0.5") == [
        "test_needle[full-s0]",
        "test_needle[floor-s0]",
        "test_needle[oracle-r0.25-s0]",
        "test_needle[oracle-r0.5-s0]",
        "test_needle[snapkv-r0.25-s0]",
        "test_needle[snapkv-r0.5-s0]",
        "test_needle[full-s1]",
        "test_needle[floor-s1]",
        "test_needle[oracle-r0.25-s1]",
        "test_needle[oracle-r0.5-s1]",
        "test_needle[snapkv-r0.25-s1]",
        "test_needle[snapkv-r0.5-s1]",
    ]


def test_k_selects_by_suite(grid: Lab) -> None:
    assert grid.collect("suites", "-kneedle") == grid.collect("suites/test_needle.py")


def test_k_selects_by_retention(grid: Lab) -> None:
    assert grid.collect("--retention=0.25,0.5", "-kr0.25", "--kv-seeds=1") == [
        "test_needle[oracle-r0.25-s0]",
        "test_needle[snapkv-r0.25-s0]",
    ]


@pytest.mark.parametrize(
    ("retention", "expected"),
    [
        ("0.10,0.1", ["0.1"]),
        ("1/10, .1", ["0.1"]),
        ("0.5,0.25,1", ["0.25", "0.5", "1"]),
        ("1/3", ["1_3"]),
    ],
)
def test_retentions_are_exact_sorted_and_each_there_once(
    grid: Lab, retention: str, expected: list[str]
) -> None:
    ids = grid.collect(f"--retention={retention}", "--kv-seeds=1", "-ksnapkv")
    assert ids == [f"test_needle[snapkv-r{text}-s0]" for text in expected]


def test_policy_and_retention_are_repeatable(grid: Lab) -> None:
    options = ("--policy=snapkv", "--policy=tova,random", "--retention=0.5", "--retention=0.25")
    assert grid.collect(*options, "--kv-seeds=1", "-ktova or random") == [
        "test_needle[tova-r0.25-s0]",
        "test_needle[tova-r0.5-s0]",
        "test_needle[random-r0.25-s0]",
        "test_needle[random-r0.5-s0]",
    ]


def test_an_anchor_that_is_named_is_there_once(grid: Lab) -> None:
    assert grid.collect("--policy=oracle,full", "--kv-seeds=1") == [
        "test_needle[full-s0]",
        "test_needle[floor-s0]",
        "test_needle[oracle-r0.25-s0]",
    ]


def test_parameters_and_wrapped_policies_make_slugs(grid: Lab) -> None:
    ids = grid.collect("--policy=snapkv(window=8, pooling='none')", "--kv-seeds=1", "-ksnapkv")
    assert ids == ["test_needle[snapkv+poolingnone+window8-r0.25-s0]"]
    ids = grid.collect("--policy=snapkv(window=8),snapkv", "--kv-seeds=1", "-ksnapkv+window8")
    assert ids == ["test_needle[snapkv+window8-r0.25-s0]"]


def test_without_options_every_installed_policy_is_collected_in_sorted_order(grid: Lab) -> None:
    result = grid.main("--collect-only", "-q", "suites/test_needle.py")
    names = [line for line in result.outlines if "-s0]" in line and "-r0.1-" in line]
    policies = [name.partition("[")[2].partition("-r0.1")[0] for name in names]
    assert policies[0] == "oracle"
    assert policies[1:] == sorted(policies[1:])
    assert {"snapkv", "random", "h2o", "knorm"} <= set(policies)
    assert sum("-s4]" in line for line in result.outlines) == 2 + 4 * len(policies)


def test_the_order_does_not_depend_on_the_order_of_entry_points(
    grid: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--collect-only", "-q", "suites")
    expected = grid.main(*arguments).outlines[:-1]
    real = importlib.metadata.entry_points

    def shuffled(**chosen: Any) -> Any:
        found = list(real(**chosen))
        rng.shuffle(found)
        return found if chosen.get("group") == "kvharness.policies" else real(**chosen)

    rng = random.Random(1)
    monkeypatch.setattr(importlib.metadata, "entry_points", shuffled)
    for _ in range(3):
        assert grid.main(*arguments).outlines[:-1] == expected
    assert len(expected) > 100


def test_a_test_of_ones_own_gets_the_cells_of_its_suite(lab: Lab) -> None:
    (lab.folder / "test_mine.py").write_text(
        "import pytest\n"
        "@pytest.mark.kv_suite('needle')\n"
        "def test_one(kv_result):\n"
        "    kv_result.check()\n"
        "    assert kv_result.cell.suite == 'needle'\n"
        "@pytest.mark.kv_suite('needle')\n"
        "@pytest.mark.parametrize('more', [1, 2])\n"
        "def test_two(kv_result, more):\n"
        "    kv_result.check()\n"
        "    assert len(kv_result.records) == 2\n"
    )
    result = lab.run("test_mine.py", "--kv-seeds=1")
    result.assert_outcomes(passed=12)
    assert sum(lab.lines().values()) == 8, "cells that two tests share are computed once"
