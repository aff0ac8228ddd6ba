from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from kvharness.cell import Cell, Group
from kvharness.plugin.collection import cell_of, grouped, left_out

if TYPE_CHECKING:
    import pytest

    from kvharness.run.settings import Settings


def a_test(**params: object) -> pytest.Item:
    return cast("pytest.Item", SimpleNamespace(callspec=SimpleNamespace(params=params)))


def a_cell(suite: str = "needle", policy: str = "full", seed: int = 0) -> Cell:
    return Cell(suite=suite, policy=policy, retention=None, seed=seed)


def settings(*, hard: bool = False, shard: tuple[int, int] = (1, 1)) -> Settings:
    return cast("Settings", SimpleNamespace(hard=hard, shard=shard))


def test_a_test_has_a_cell_only_by_its_fixture() -> None:
    assert cell_of(a_test(kv_result=a_cell())) == a_cell()
    assert cell_of(a_test(kv_result="full-s0")) is None
    assert cell_of(a_test(other=a_cell())) is None
    assert cell_of(cast("pytest.Item", SimpleNamespace())) is None


def test_two_tests_of_one_cell_are_one_cell() -> None:
    tests = [
        a_test(kv_result=a_cell()),
        a_test(kv_result=a_cell()),
        a_test(kv_result=a_cell(policy="floor")),
        a_test(kv_result=a_cell(seed=1)),
        a_test(),
    ]
    assert grouped(tests) == {
        Group("needle", 0): [a_cell(), a_cell(policy="floor")],
        Group("needle", 1): [a_cell(seed=1)],
    }


def test_tests_of_hard_suites_and_other_shards_are_left_out() -> None:
    hard = a_test(kv_result=a_cell("qa-records"))
    seeds = [a_test(kv_result=a_cell(seed=seed)) for seed in range(2)]
    everything = [hard, *seeds, a_test()]
    empty = a_test(kv_result=object())
    assert left_out([*everything, empty], settings(hard=True)) == [empty], "nothing to replay"
    assert left_out(everything, settings()) == [hard]
    assert left_out(everything, settings(hard=True)) == []
    assert left_out(everything, settings(shard=(1, 2))) == [hard, seeds[1]]
