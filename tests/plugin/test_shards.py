from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.conftest import WHOLE, stable

if TYPE_CHECKING:
    from tests.plugin.conftest import Finished, Lab


def test_two_halves_are_the_whole(lab: Lab, whole: Finished) -> None:
    first = lab.run(*WHOLE, "--kv-shard=1/2", "--kv-store=first")
    second = lab.run(*WHOLE, "--kv-shard=2/2", "--kv-store=second")
    for result in (first, second):
        result.assert_outcomes(passed=8, deselected=8)
    one, other = stable(lab.records("first")), stable(lab.records("second"))
    assert not one.keys() & other.keys()
    assert one | other == stable(whole.lab.records())


def test_shards_meet_in_one_store(lab: Lab, whole: Finished) -> None:
    for shard in ("1/2", "2/2"):
        lab.run(*WHOLE, f"--kv-shard={shard}")
    assert stable(lab.records()) == stable(whole.lab.records())
    result = lab.run(*WHOLE)
    result.stdout.fnmatch_lines(["0 records computed, 32 reused; *"])


def test_a_shard_is_made_of_whole_groups(lab: Lab) -> None:
    shards = [
        lab.collect("suites", "--kv-seeds=3", f"--kv-shard={number}/4") for number in range(1, 5)
    ]
    everything = lab.collect("suites", "--kv-seeds=3")
    assert sorted(each for shard in shards for each in shard) == sorted(everything)
    groups = [{(each.partition("[")[0], each[-3:-1]) for each in shard} for shard in shards]
    assert sorted(len(group) for group in groups) == [2, 2, 2, 3]
    assert len(set.union(*groups)) == 9


def test_more_shards_than_groups(lab: Lab) -> None:
    assert lab.collect("--kv-seeds=1", "--kv-shard=2/2") == []


def test_tests_without_cells_are_in_every_shard(lab: Lab) -> None:
    (lab.folder / "test_mine.py").write_text("def test_mine(): ...\n")
    for shard in ("1/2", "2/2"):
        assert "test_mine" in lab.collect("suites", "test_mine.py", f"--kv-shard={shard}")
