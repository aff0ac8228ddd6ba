from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness.errors import StoreProblem
from kvharness.records.comparable import comparable
from kvharness.records.record import QuestionRecord, Record, Seconds
from kvharness.records.schema import decode_record, encode_record
from kvharness.records.store import SCHEMA, Header, Store, Writer, check_writable, group_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEADER = Header(
    run="r1",
    created="2025-01-01T00:00:00+00:00",
    versions={"python": "3.11.7"},
    machine={"cores": 2},
    git={},
    settings={
        "model": {"name": "tiny", "digest": "abc"},
        "contract": {
            "context": 1024,
            "sinks": 4,
            "recents": 16,
            "question": "unseen",
            "evict": "prefill",
        },
        "seeds": 5,
        "items": 12,
        "data": {},
        "policies": {"sip": {"source": "s1"}},
        "of a later version": [None, 1.5],
    },
)
# A sum that is no short decimal, and text that is longer in UTF-8 than in characters.
RECORD = Record(
    key="k",
    suite="needle",
    policy="sip",
    retention="0.25",
    seed=1,
    item="item-1",
    item_digest="d1",
    variant="",
    score=0.1 + 0.2,
    score_name="exact",
    metrics={"exact": 0.5, "nll": 1e-300},
    questions=(
        QuestionRecord(exact=1.0, slot_accuracy=0.5, nll=2.5, agreement=1.0, generated="Zoë → 4"),
        QuestionRecord(
            exact=0.0, slot_accuracy=0.0, nll=9.0, agreement=0.0, text_metrics={"rouge": 0.1}
        ),
    ),
    evidence_kept=None,
    realised_retention=0.25,
    kept=(256, 256),
    tokens=1024,
    cache_bytes=2**40,
    mask_digest=("m1",),
    seconds=Seconds(prefill=1.0, select=0.1, decode=0.2),
)
RECORDS = tuple(replace(RECORD, key=f"{number}{number}" * 8) for number in range(5))
CHILD = f"""
SETTINGS = {HEADER.settings}
import itertools, sys
from dataclasses import replace
from pathlib import Path
from kvharness.records.schema import decode_record
from kvharness.records.store import Header, Writer, group_lock

directory, record = Path(sys.argv[1]), decode_record(sys.stdin.buffer.readline())
"""
APPEND = """
writer = Writer(directory, Header.create(SETTINGS))
for number in itertools.islice(itertools.count(), int(sys.argv[2]) or None):
    writer.append(replace(record, key=f"{sys.argv[3]}-{number}"))
"""
HOLD = """
with group_lock(directory, sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""
FULL_DISK = """
import resource
from kvharness.errors import StoreProblem

# A file of byte code that is cut short would outlive this test.
sys.dont_write_bytecode = True

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def refused(key):
    try:
        writer.append(replace(record, key=key))
    except StoreProblem as error:
        print(error)

writer = Writer(directory, Header.create(SETTINGS))
limit(100)
refused("before the header fits")
assert not list(directory.iterdir())
limit(resource.RLIM_INFINITY)
writer.append(replace(record, key="a"))
[path] = directory.iterdir()
limit(path.stat().st_size + 100)
refused("b")
limit(resource.RLIM_INFINITY)
writer.append(replace(record, key="c"))
writer.append(replace(record, key="d"))
"""

integers = st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1)
counts = st.integers(min_value=0, max_value=2**63 - 1)
numbers = st.floats(-1e100, 1e100)
texts = st.text(st.characters(exclude_categories=["Cs"]))
metrics = st.dictionaries(texts, numbers)
questions = st.builds(
    QuestionRecord,
    exact=numbers,
    slot_accuracy=numbers,
    nll=numbers,
    agreement=numbers,
    evidence_kept=st.none() | numbers,
    generated=st.none() | texts,
    text_metrics=metrics,
)
records = st.builds(
    Record,
    key=texts,
    suite=texts,
    policy=texts,
    retention=st.sampled_from([None, "0.1", "1", "1_3", "0.25"]),
    seed=integers,
    item=texts,
    item_digest=texts,
    variant=texts,
    score=numbers,
    score_name=texts,
    metrics=metrics,
    questions=st.lists(questions, max_size=3).map(tuple),
    evidence_kept=st.none() | numbers,
    realised_retention=numbers,
    kept=st.lists(counts, max_size=3).map(tuple),
    tokens=counts,
    cache_bytes=counts,
    mask_digest=st.lists(texts, max_size=3).map(tuple),
    seconds=st.builds(Seconds, prefill=numbers, select=numbers, decode=numbers),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
quick = settings(max_examples=60, deadline=None)


def write(directory: Path, records: tuple[Record, ...], header: Header = HEADER) -> Path:
    before = set(directory.glob("*.jsonl"))
    with Writer(directory, header) as writer:
        for record in records:
            writer.append(record)
    [path] = set(directory.glob("*.jsonl")) - before
    return path


def read_lines(lines: list[bytes], directory: Path) -> Store:
    (directory / "records.jsonl").write_bytes(b"".join(lines))
    return Store.read(directory)


def keys(store: Store) -> list[str]:
    return list(store.by_key)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A header and RECORDS."""
    path = write(tmp_path_factory.mktemp("store"), RECORDS)
    return path.read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For one file that each example of a property overwrites."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    children: list[subprocess.Popen[bytes]] = []

    def run(code: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CHILD + code, *arguments]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None
        child.stdin.write(encode_record(RECORD))
        child.stdin.flush()
        children.append(child)
        return child

    yield run
    for child in children:
        child.kill()
        child.communicate()


@pytest.mark.parametrize(
    ("cut", "lost", "told"),
    [
        (0, "", ()),
        (1, "", ()),  # the newline alone: the record is whole
        (30, "r1", ("line 2: skipped (not JSON",)),
    ],
)
def test_files_that_stand_end_to_end_keep_their_headers(
    tmp_path: Path, cut: int, lost: str, told: tuple[str, ...]
) -> None:
    store = Store.read(end_to_end(tmp_path, lambda first: first[: len(first) - cut]))
    assert len(store.warnings) == len(told)
    assert all(words in warning for words, warning in zip(told, store.warnings, strict=True))
    assert [header.run for header in store.headers] == ["r1", "r2"]
    assert {key: each.header.run for key, each in store.by_key.items()} == {
        run * 16: run for run in ("r1", "r2") if run != lost
    }


def test_records_behind_a_header_that_cannot_be_read_are_not_anothers(tmp_path: Path) -> None:
    def spoil(second: bytes) -> bytes:
        return second[:40] + b"\n" + second.partition(b"\n")[2]

    store = Store.read(end_to_end(tmp_path, second=spoil))
    assert [header.run for header in store.headers] == ["r1"]
    assert [*store.by_key] == ["r1" * 16]
    (warning,) = store.warnings
    assert "line 3: no valid header, so its 1 other lines are not used" in warning


def end_to_end(
    folder: Path,
    first: Callable[[bytes], bytes] = bytes,
    second: Callable[[bytes], bytes] = bytes,
) -> Path:
    """A store of one file, made of two runs' with a record each."""
    found = []
    for run, change in (("r1", first), ("r2", second)):
        with Writer(folder / run, replace(HEADER, run=run)) as writer:
            writer.append(replace(RECORD, key=run * 16))
        (file,) = (folder / run).iterdir()
        found.append(change(file.read_bytes()))
    (folder / "both").mkdir()
    (folder / "both" / "records.jsonl").write_bytes(b"".join(found))
    return folder / "both"


def test_records_come_back_with_their_header(tmp_path: Path) -> None:
    write(tmp_path, RECORDS)
    store = Store.read(tmp_path)
    assert store.headers == (HEADER,)
    assert store.warnings == ()
    assert tuple(stored.record for stored in store.by_key.values()) == RECORDS
    assert all(stored.header == HEADER for stored in store.by_key.values())


@quick
@given(record=records)
def test_any_record_survives(record: Record) -> None:
    line = encode_record(record)
    assert decode_record(line) == record
    assert line.count(b"\n") == 1


def test_the_file_is_plain_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path, (RECORD,))
    header, record = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert path.name.startswith("records-2")
    assert (header["kind"], header["schema"], header["run"]) == ("header", SCHEMA, "r1")
    assert record == json.loads(json.dumps({"kind": "record", **RECORD.as_dict()}))
    assert "Zoë" in path.read_text(encoding="utf-8")


def test_nothing_is_created_before_the_first_record(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    with Writer(directory, HEADER) as writer:
        assert not directory.exists()
        writer.append(RECORD)
        assert keys(Store.read(directory)) == ["k"]


def test_missing_and_empty_directories_are_empty_stores(tmp_path: Path) -> None:
    empty = Store(by_key={}, headers=(), warnings=())
    assert Store.read(tmp_path) == empty
    assert Store.read(tmp_path / "missing" / "deeper") == empty


def test_other_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>")
    (tmp_path / "directory.jsonl").mkdir()
    assert Store.read(tmp_path).warnings == ()


def test_the_last_record_of_a_key_wins(tmp_path: Path) -> None:
    later, again = replace(RECORD, score=2.0), replace(RECORD, score=3.0)
    write(tmp_path, (again,)).rename(tmp_path / "b.jsonl")
    write(tmp_path, (RECORD, later)).rename(tmp_path / "a.jsonl")
    assert Store.read(tmp_path).by_key["k"].record == again
    (tmp_path / "b.jsonl").unlink()
    assert Store.read(tmp_path).by_key["k"].record == later


@quick
@given(data=st.data())
def test_truncation_loses_no_complete_record(
    lines: list[bytes], scratch: Path, data: st.DataObject
) -> None:
    content = b"".join(lines)
    length = data.draw(st.integers(0, len(content)))
    (scratch / "records.jsonl").write_bytes(content[:length])
    store = Store.read(scratch)
    # A record is complete when only its newline is missing.
    complete = sum(length >= len(b"".join(lines[: place + 1])) - 1 for place in range(1, 6))
    assert keys(store) == [record.key for record in RECORDS[:complete]]
    assert store.warnings == ()


@quick
@given(data=st.data())
def test_corruption_loses_at_most_its_line(
    lines: list[bytes], scratch: Path, data: st.DataObject
) -> None:
    place = data.draw(st.integers(1, len(lines) - 1))
    line = lines[place].removesuffix(b"\n")
    begin = data.draw(st.integers(0, len(line) - 1))
    garbage = data.draw(st.binary(min_size=1, max_size=4))
    broken = line[:begin] + garbage + line[begin + len(garbage) :] + b"\n"
    store = read_lines([*lines[:place], broken, *lines[place + 1 :]], scratch)
    assert store.headers == (HEADER,)
    for record in RECORDS[: place - 1] + RECORDS[place:]:
        assert store.by_key[record.key].record == record


@quick
@given(value=json_values)
def test_any_json_in_place_of_a_record_is_a_warning(
    lines: list[bytes], scratch: Path, value: Any
) -> None:
    store = read_lines([*lines[:2], json.dumps(value).encode() + b"\n", *lines[3:]], scratch)
    assert len(store.by_key) == len(RECORDS) - 1
    assert len(store.warnings) == 1
    assert "'records.jsonl', line 3: skipped" in store.warnings[0]


@quick
@given(value=json_values, data=st.data())
def test_any_json_in_place_of_a_field_is_valid_or_a_warning(
    lines: list[bytes], scratch: Path, value: Any, data: st.DataObject
) -> None:
    record = json.loads(lines[1])
    record[data.draw(st.sampled_from(sorted(record)))] = value
    store = read_lines([lines[0], json.dumps(record).encode() + b"\n", *lines[2:]], scratch)
    assert {record.key for record in RECORDS[1:]} <= set(store.by_key)
    assert len(store.by_key) + len(store.warnings) == len(RECORDS)
    for stored in store.by_key.values():
        assert decode_record(encode_record(stored.record)) == stored.record


@quick
@given(value=json_values, data=st.data())
def test_any_json_in_place_of_a_header_field_is_valid_or_a_warning(
    lines: list[bytes], scratch: Path, value: Any, data: st.DataObject
) -> None:
    header = json.loads(lines[0])
    header[data.draw(st.sampled_from(sorted(header.keys() - {"schema"})))] = value
    store = read_lines([json.dumps(header).encode() + b"\n", *lines[1:]], scratch)
    assert len(store.by_key) == len(RECORDS) * len(store.headers)
    assert len(store.headers) + len(store.warnings) == 1


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("score", "NaN", "record.score: expected a finite number .*got float nan"),
        ("score", "-Infinity", "record.score: expected a finite number"),
        ("score", "1e999", "record.score: expected a finite number"),
        ("score", "-1.7e308", "record.score: expected a finite number of at most 1e.100"),
        ("score", "1" + "0" * 400, "record.score: expected a finite number"),
        ("score", "1" * 5000, "4300 digits"),
        ("score", "true", "record.score: expected a finite number .*got bool True"),
        ("score", "[" * 100_000, "not JSON|recursion"),
        ("score", "[" * 500 + "]" * 500, "record.score: expected a finite number .*got list"),
        ("metrics", '{"f1": "high"}', "record.metrics.f1: .* got str 'high'"),
        ("metrics", '{"rouge 1": null}', r"record.metrics\['rouge 1'\]: expected a finite number"),
        ("metrics", "[]", "record.metrics: expected an object"),
        ("kept", "[1, -1]", r"record.kept\[1\]: expected an integer from 0"),
        ("kept", "[1.0]", r"record.kept\[0\]: expected an integer from 0"),
        ("kept", "[9223372036854775808]", r"record.kept\[0\]: .* to 9223372036854775807, got int"),
        ("kept", "3", "record.kept: expected a list"),
        ("questions", '[{"exact": 1}]', r"record.questions\[0\]: the field 'agreement' is missing"),
        ("questions", "[1]", r"record.questions\[0\]: expected an object"),
        ("seconds", "{}", "record.seconds: the field 'decode' is missing"),
        ("seed", "true", "record.seed: expected an integer"),
        ("suite", "null", "record.suite: expected a string, got NoneType None"),
        ("item", r'"\ud800"', "record.item: expected text without lone surrogates"),
        ("retention", '"most"', "record.retention: expected a retention"),
        ("retention", '"1_0"', "record.retention: expected a retention"),
        ("retention", '"1.5"', "record.retention: expected a retention"),
        ("retention", '"1e-999999999"', "record.retention: expected a retention"),
        ("kind", '"none"', "expected an object of kind 'record'"),
        ("surprise", "1", "record: unknown field 'surprise'"),
    ],
)
def test_a_bad_field_is_a_warning_that_names_it(
    lines: list[bytes], tmp_path: Path, field: str, text: str, reason: str
) -> None:
    values = json.loads(lines[2]) | {field: "?"}
    bad = json.dumps(values).replace('"?"', text).encode() + b"\n"
    store = read_lines([*lines[:2], bad, *lines[3:]], tmp_path)
    assert keys(store) == [record.key for record in RECORDS[:1] + RECORDS[2:]]
    [warning] = store.warnings
    assert re.search(f"'records.jsonl', line 3: skipped .*({reason})", warning)


def test_a_missing_field_is_a_warning(lines: list[bytes], tmp_path: Path) -> None:
    record = {name: value for name, value in json.loads(lines[1]).items() if name != "score"}
    store = read_lines([lines[0], json.dumps(record).encode() + b"\n", lines[2]], tmp_path)
    assert store.warnings == (
        "'records.jsonl', line 2: skipped (record: the field 'score' is missing)",
    )
    assert keys(store) == [RECORDS[1].key]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"kind": "record", "key": "\xff"}', "not UTF-8: invalid start byte at byte 27"),
        (b"\xef\xbb\xbf{}", "not JSON: Unexpected UTF-8 BOM"),
        ('{"kind": "record"}'.encode("utf-16"), "not UTF-8"),
        (b'{"kind": "rec', "not JSON: Unterminated string"),
        (b"\0" * 9, "not JSON"),
    ],
)
def test_bad_bytes_are_a_warning_inside_and_silent_at_the_end(
    lines: list[bytes], tmp_path: Path, bad: bytes, reason: str
) -> None:
    inside = read_lines([*lines[:3], bad + b"\n", *lines[3:]], tmp_path)
    assert [record.key for record in RECORDS] == keys(inside)
    assert len(inside.warnings) == 1
    assert f"'records.jsonl', line 4: skipped ({reason}" in inside.warnings[0]
    for end in (bad, bad + b"\n"):
        store = read_lines([*lines, end], tmp_path)
        assert (keys(store), store.warnings) == (keys(inside), ())


def test_a_complete_bad_last_line_is_a_warning(lines: list[bytes], tmp_path: Path) -> None:
    store = read_lines([*lines, b"[1]\n"], tmp_path)
    assert len(store.warnings) == 1
    assert "line 7: skipped" in store.warnings[0]


def test_interleaved_fragments_cost_one_line(lines: list[bytes], tmp_path: Path) -> None:
    store = read_lines([*lines[:2], lines[2][:50], *lines[3:]], tmp_path)
    assert keys(store) == [record.key for record in RECORDS[:1] + RECORDS[3:]]
    assert len(store.warnings) == 1
    assert "'records.jsonl', line 3: skipped (not JSON" in store.warnings[0]


@pytest.mark.parametrize("content", [b"", b"\n", b'{"kind": "hea', b'{"kind": "hea\n'])
def test_a_file_without_a_finished_line_is_silent(tmp_path: Path, content: bytes) -> None:
    assert read_lines([content], tmp_path) == Store(by_key={}, headers=(), warnings=())


def change(settings: dict[str, Any], place: str, value: Any) -> None:
    """Set a value, given as ``model.name``; ... takes it out."""
    *names, last = place.split(".")
    for name in names:
        settings = settings[name]
    settings[last] = value
    if value is ...:
        del settings[last]


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("policies", [], "expected an object, got list"),
        ("policies.sip", "s1", "expected an object, got str"),
        ("contract", [1024], "expected an object, got list"),
        ("contract.sinks", "4", "expected an integer from 0"),
        ("contract.question", "known", "expected one of unseen, seen, prompt, got str 'known'"),
        ("contract.question", [], "expected one of unseen, seen, prompt, got list"),
        ("contract.evict", ..., "the field 'evict' is missing"),
        ("model", "tiny", "expected an object, got str"),
        ("model.name", 3, "expected a string, got int 3"),
        ("model.note", [], "expected a string, got list"),
        ("model.name", ..., "the field 'name' is missing"),
        ("seeds", 10**9, "expected an integer from 1 to 10000000, got int 1000000000"),
        ("seeds", 0, "expected an integer from 1"),
        ("items", ..., "the field 'items' is missing"),
        ("data", None, "expected an object, got NoneType"),
        ("options", {"--kv-dtype": 1}, "expected a string, got int"),
    ],
)
def test_settings_that_nobody_could_read_are_told_once(
    lines: list[bytes], tmp_path: Path, place: str, value: Any, reason: str
) -> None:
    write(tmp_path, (replace(RECORD, key="other"),))
    header = json.loads(lines[0])
    change(header["settings"], place, value)
    store = read_lines([json.dumps(header).encode() + b"\n", *lines[1:]], tmp_path)
    assert keys(store) == ["other"]
    [warning] = store.warnings
    assert "'records.jsonl', line 1: no valid header, so its 5 other lines are not used" in warning
    gone = value is ...
    assert f"header.settings.{place}".rpartition(".")[0 if gone else 2] in warning
    assert reason in warning


def test_a_header_without_settings_is_told(lines: list[bytes], tmp_path: Path) -> None:
    header = json.loads(lines[0]) | {"settings": {}}
    store = read_lines([json.dumps(header).encode() + b"\n", *lines[1:]], tmp_path)
    assert "(header.settings: the field 'contract' is missing)" in store.warnings[0]
    with pytest.raises(StoreProblem, match=r"no records in this folder.*'contract' is missing"):
        comparable(tmp_path)


@pytest.mark.parametrize("header", [b"", b"{torn\n", b"[]\n", b'{"kind": "header"}\n'])
def test_records_without_a_header_are_unusable(
    lines: list[bytes], tmp_path: Path, header: bytes
) -> None:
    write(tmp_path, (replace(RECORD, key="other"),))
    store = read_lines([header, *lines[1:]], tmp_path)
    assert keys(store) == ["other"]
    assert len(store.warnings) == 1
    assert "'records.jsonl', line 1: no valid header" in store.warnings[0]


def test_another_schema_is_refused(lines: list[bytes], tmp_path: Path) -> None:
    header = json.dumps({"kind": "header", "schema": 99, "future": 1}).encode() + b"\n"
    with pytest.raises(StoreProblem) as caught:
        read_lines([header, *lines[1:]], tmp_path)
    assert str(caught.value) == (
        f"'{tmp_path}/records.jsonl' is of store schema 99, this kvharness reads and writes "
        f"schema 1; use another directory with --kv-store DIR, or move the file away"
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"score": float("nan")}, "record.score"),
        ({"metrics": {"f1": float("inf")}}, "record.metrics.f1"),
        ({"questions": (replace(RECORD.questions[0], nll=float("inf")),)}, r"questions\[0\].nll"),
        ({"kept": (np.int64(3),)}, r"record.kept\[0\]"),
        ({"tokens": 10**5000}, "."),
        ({"item": "\ud800"}, "record.item"),
        ({"metrics": {1: 0.0}}, r"record.metrics\[1\]: expected a string"),
    ],
)
def test_what_json_cannot_hold_is_refused(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    with Writer(tmp_path / "new", HEADER) as writer:
        with pytest.raises(StoreProblem, match=f"policy 'sip' on item .*{field}"):
            writer.append(replace(RECORD, **changes))
        assert not (tmp_path / "new").exists()
        writer.append(replace(RECORD, score=np.float64(0.5)))
    assert Store.read(tmp_path / "new").by_key["k"].record.score == 0.5


def test_settings_that_json_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreProblem, match=r"header\.settings\.store: expected .* PosixPath"):
        Writer(tmp_path, replace(HEADER, settings={**HEADER.settings, "store": tmp_path}))


def append(directory: Path) -> None:
    Writer(directory, HEADER).append(RECORD)


def lock(directory: Path) -> None:
    with group_lock(directory, "g"):
        pytest.fail("locked in a regular file")


@pytest.mark.parametrize(
    ("attempt", "hint"),
    [
        (append, "--kv-store DIR"),
        (lock, "--kv-store DIR"),
        (check_writable, "--kv-store DIR"),
        (Store.read, "another folder"),
    ],
)
@pytest.mark.parametrize("below", ["", "below", "far/below"])
def test_a_directory_that_cannot_be_used(
    tmp_path: Path, attempt: Callable[[Path], object], hint: str, below: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreProblem, match=rf"cannot .* the store .*file.*{hint}"):
        attempt(tmp_path / "file" / below)


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    before = list(tmp_path.rglob("*"))
    check_writable(tmp_path / "store")
    check_writable(tmp_path / "store" / "a" / "b")
    assert list(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["x" * 300, "dangling"])
def test_a_check_sees_what_creation_would_meet(tmp_path: Path, name: str) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "a" / "b")
    with pytest.raises(StoreProblem, match="--kv-store DIR"):
        check_writable(tmp_path / name)


def test_a_full_disk_costs_only_what_was_refused(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    output, _ = start(FULL_DISK, str(tmp_path)).communicate(timeout=60)
    assert output.decode().count("cannot write to the store") == 2
    assert "File too large" in output.decode()
    store = Store.read(tmp_path)
    assert keys(store) == ["a", "c", "d"]
    assert len(store.warnings) == 1


def test_a_killed_writer_loses_no_finished_record(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    child = start(APPEND, str(tmp_path), "0", "a")
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in tmp_path.iterdir()) < 200_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    [path] = tmp_path.iterdir()
    finished = path.read_bytes().count(b"\n") - 1
    store = Store.read(tmp_path)
    assert keys(store)[:finished] == [f"a-{number}" for number in range(finished)]
    assert finished > 100
    assert store.warnings == ()


def test_two_writers_at_once(tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    children = [start(APPEND, str(tmp_path), "200", name) for name in "ab"]
    assert [child.wait(60) for child in children] == [0, 0]
    store = Store.read(tmp_path)
    assert set(store.by_key) == {f"{name}-{number}" for name in "ab" for number in range(200)}
    assert len({header.run for header in store.headers}) == 2
    assert store.warnings == ()


def test_two_writers_of_one_process_have_a_file_each(tmp_path: Path) -> None:
    with Writer(tmp_path, HEADER) as one, Writer(tmp_path, HEADER) as other:
        one.append(RECORDS[0])
        other.append(RECORDS[1])
        one.append(RECORDS[2])
    assert set(Store.read(tmp_path).by_key) == {record.key for record in RECORDS[:3]}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_lock_is_released_when_its_holder_is_killed(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    holder = start(HOLD, str(tmp_path), "needle/1")
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    entered = threading.Event()

    def enter() -> None:
        with group_lock(tmp_path, "needle/1"):
            entered.set()

    waiting = threading.Thread(target=enter, daemon=True)
    waiting.start()
    assert not entered.wait(0.3)
    holder.kill()
    assert entered.wait(10)
    waiting.join()


def test_groups_have_locks_of_their_own(tmp_path: Path) -> None:
    with group_lock(tmp_path, "a/1"), group_lock(tmp_path, "a_1"), group_lock(tmp_path, "../" * 99):
        assert len(list((tmp_path / ".locks").iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]
    assert Store.read(tmp_path).warnings == ()


def test_the_lock_does_not_explain_errors_of_its_body(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), group_lock(tmp_path, "a"):
        raise FileNotFoundError
    with group_lock(tmp_path, "a"):
        pass
