from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.contract import EvictMode
from kvharness.errors import StoreProblem
from kvharness.records.comparable import EVICT, NOTHING, comparable, newest_records
from tests.runs import SETTINGS, a_record

if TYPE_CHECKING:
    from tests.runs import Keep


def test_an_item_that_was_run_again_counts_once(keep: Keep, tmp_path: Path) -> None:
    keep(a_record("old"), second=1)
    keep(a_record("new"), second=2)
    records, headers, left_out = newest_records(tmp_path)
    assert [record.key for record in records] == ["new"]
    assert [header.created[-8:-6] for header in headers] == ["02"]
    assert left_out == 0


def test_what_cannot_be_read_is_told(keep: Keep, tmp_path: Path) -> None:
    keep(a_record("k1"), a_record("k2"))
    (file,) = tmp_path.iterdir()
    header, first, second = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([header, b"\xff garbage", first, second, b""]))
    told: list[str] = []
    stored, *_ = comparable(tmp_path, say=told.append)
    assert len(stored) == 2
    assert len(told) == 1
    assert "line 2: skipped" in told[0]


@pytest.mark.parametrize("newer", ["decode", "blocks"])
def test_a_run_that_evicts_otherwise_hides_no_recording(
    tmp_path: Path, keep: Keep, newer: str
) -> None:
    keep(a_record("old"))
    keep(a_record("new"), second=9, contract={**SETTINGS["contract"], "evict": newer})
    for evict, key in ((None, "old"), (EvictMode.PREFILL, "old"), (EvictMode(newer), "new")):
        demanded = {EVICT: evict.value} if evict else NOTHING
        stored, newest, left_out = comparable(tmp_path, demanded=demanded)
        assert [each.record.key for each in stored] == [key]
        assert newest.settings["contract"]["evict"] == (newer if key == "new" else "prefill")
        assert left_out == 1
    (other,) = {EvictMode.DECODE, EvictMode.BLOCKS} - {EvictMode(newer)}
    with pytest.raises(
        StoreProblem, match=f"no record is of --kv-evict={other.value}; there are some of"
    ):
        comparable(tmp_path, demanded={EVICT: other.value})


@pytest.mark.parametrize(
    ("flag", "old", "change"),
    [
        ("--kv-context", "400", {"contract": {**SETTINGS["contract"], "context": 800}}),
        ("--kv-sinks", "3", {"contract": {**SETTINGS["contract"], "sinks": 4}}),
        ("--kv-recents", "5", {"contract": {**SETTINGS["contract"], "recents": 6}}),
        ("--kv-question", "seen", {"contract": {**SETTINGS["contract"], "question": "unseen"}}),
        ("--kv-items", "2", {"items": 3}),
        ("--kv-generate", "none", {"generate": "all"}),
        ("--kv-model", "models/tiny", {"model": {**SETTINGS["model"], "name": "large"}}),
        ("--kv-dtype", "float32", {"model": {**SETTINGS["model"], "dtype": "bfloat16"}}),
        ("--kv-threads", "1", {"model": {**SETTINGS["model"], "threads": "2"}}),
        ("--kv-device", "cpu", {"model": {**SETTINGS["model"], "device": "cuda"}}),
        ("--kv-haystack", "", {"options": {"--kv-haystack": "mine.txt"}}),
    ],
)
def test_settings_that_are_demanded_choose_the_records(
    tmp_path: Path,
    keep: Keep,
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
    old: str,
    change: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models/tiny").mkdir(parents=True)
    keep(a_record("old"))
    keep(a_record("new"), second=9, **change)
    (newest,), *_ = comparable(tmp_path)
    assert newest.record.key == "new"
    (found,), *_ = comparable(tmp_path, demanded={flag: old})
    assert found.record.key == "old"
    lacking = flag == "--kv-haystack"
    one = f"without {flag}" if lacking else f"of {flag}=.*"
    told = f"no record is of {flag}=77; there are some {one}, or of {flag}="
    with pytest.raises(StoreProblem, match=told):
        comparable(tmp_path, demanded={flag: "77"})


def test_a_model_of_another_organisation_is_another_model(tmp_path: Path, keep: Keep) -> None:
    keep(a_record("one"))
    with pytest.raises(
        StoreProblem, match="of --kv-model=org/tiny; there are some of --kv-model=tiny"
    ):
        comparable(tmp_path, demanded={"--kv-model": "org/tiny"})


def test_several_settings_are_demanded_together(tmp_path: Path, keep: Keep) -> None:
    keep(a_record("old"), items=12)
    decoding = {**SETTINGS["contract"], "evict": "decode", "context": 800}
    keep(a_record("new"), second=9, contract=decoding)
    (found,), *_ = comparable(tmp_path, demanded={"--kv-context": "800"})
    assert found.record.key == "new", "though it did not evict after prefill"
    with pytest.raises(StoreProblem) as told:
        comparable(tmp_path, demanded={"--kv-context": "800", EVICT: "prefill"})
    assert str(told.value).endswith(
        "no record is of --kv-context=800 --kv-evict=prefill; there are some of "
        "--kv-context=400, or of --kv-evict=decode"
    )
    with pytest.raises(StoreProblem, match="no record is of --kv-evict=blocks"):
        comparable(tmp_path, demanded={EVICT: "blocks"})


def test_an_explicit_time_of_eviction_is_kept(tmp_path: Path, keep: Keep) -> None:
    keep(a_record("one"), contract={**SETTINGS["contract"], "evict": "decode"})
    (found,), *_ = comparable(tmp_path)
    assert found.record.key == "one", "all that there is"
    with pytest.raises(
        StoreProblem, match="no record is of --kv-evict=prefill; there are some of --"
    ):
        comparable(tmp_path, demanded={EVICT: "prefill"})
