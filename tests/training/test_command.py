"""`kvharness train` from text to a policy that runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kvharness.cli.main import main
from kvharness.training import job

if TYPE_CHECKING:
    from pathlib import Path

SIP = ("--windows=40", "--layers=2", "--context=80", "--steps=4")
LKV = ("--samples=2", "--context=80", "--steps=2")


def train(policy: str, book: Path, model: Path, out: Path, *options: str) -> int:
    common = ("--text", str(book), "--kv-model", str(model), "--out", str(out))
    return main(["train", policy, *common, *options])


@pytest.mark.parametrize(("policy", "options"), [("sip", SIP), ("lkv", LKV)])
def test_training_writes_weights_once(
    policy: str,
    options: tuple[str, ...],
    book: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(policy, book, tiny_model, tmp_path, *options, "--kv-seeds=1") == 0
    (weights,) = tmp_path.rglob(f"{policy}-small-s0.safetensors")
    made = weights.read_bytes()
    manifest = json.loads(weights.with_suffix(".json").read_text())
    assert manifest["sources"] == ["book.txt"]
    assert manifest["model"] == "tiny"
    assert manifest["curves"][-1]["step"] == manifest["parameters"]["recipe"]["steps"]
    assert manifest["tokens"] > 0
    capsys.readouterr()
    assert train(policy, book, tiny_model, tmp_path, *options, "--kv-seeds=2") == 0
    assert weights.read_bytes() == made
    (other,) = tmp_path.rglob(f"{policy}-small-s1.safetensors")
    assert other.read_bytes() != made


def test_the_same_seed_trains_the_same_weights(
    book: Path, tiny_model: Path, tmp_path: Path
) -> None:
    found = []
    for name in ("a", "b"):
        train("sip", book, tiny_model, tmp_path / name, *SIP, "--kv-seeds=1")
        (weights,) = (tmp_path / name).rglob("sip-small-s0.safetensors")
        found.append(weights.read_bytes())
    assert found[0] == found[1]


def test_another_text_does_not_mix_with_stored_traces(
    book: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("sip", book, tiny_model, tmp_path, *SIP, "--kv-seeds=1")
    (weights,) = tmp_path.rglob("sip-small-s0.safetensors")
    weights.unlink()
    other = tmp_path / "other.txt"
    other.write_text(book.read_text().replace("sailor", "miller"))
    assert train("sip", other, tiny_model, tmp_path, *SIP, "--kv-seeds=2") == 2
    assert "holds traces of another model, text or size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sipp"], "no installed package trains 'sipp'. Did you mean 'sip'? Installed: lkv, sip"),
        (["sip", "--text=nowhere.txt", "--out=x"], "nowhere.txt: no such file or folder"),
        (["sip", "--text={book}", "--out=x", "--kv-seeds=0"], "--kv-seeds '0': expected a number"),
        (["sip", "--text={book}", "--out=x", "--kv-model=/no"], "is neither an embedded model"),
    ],
)
def test_mistakes_are_told_in_a_line(
    arguments: list[str], message: str, book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("{book}", str(book)) for argument in arguments]
    assert main(["train", *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("policy", "option"),
    [("sip", "--steps=-3"), ("sip", "--windows=0"), ("lkv", "--samples=0"), ("lkv", "--steps=two")],
)
def test_numbers_of_a_training_are_whole_and_from_one(
    policy: str, option: str, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", policy, "--text", str(book), "--out", str(tmp_path), option])
    assert ended.value.code == 2
    name, _, value = option.partition("=")
    message = f"argument {name}: {value!r}: expected a whole number from 1"
    assert message in capsys.readouterr().err


def test_a_context_too_short_to_quote_from_is_refused(
    book: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("lkv", book, tiny_model, tmp_path, "--samples=2", "--context=60") == 2
    assert "--context 60: expected " in capsys.readouterr().err


def test_weights_of_another_text_are_not_taken_for_trained(
    book: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("lkv", book, tiny_model, tmp_path, *LKV, "--kv-seeds=1")
    other = tmp_path / "other.txt"
    other.write_text(book.read_text().replace("sailor", "miller"))
    assert train("lkv", other, tiny_model, tmp_path, *LKV, "--kv-seeds=1") == 2
    assert "was trained on another text; give another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "changed", "told"),
    [
        (("sip", *SIP), "--steps=3", "recipe.steps=4, not 3"),
        (("lkv", *LKV), "--steps=3", "recipe.steps=2, not 3"),
        (("lkv", *LKV), "--samples=3", "data.samples=2, not 3"),
    ],
)
def test_weights_of_other_parameters_are_not_taken_for_trained(
    options: tuple[str, ...],
    changed: str,
    told: str,
    *,
    book: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy, *others = options
    assert train(policy, book, tiny_model, tmp_path, *others, "--kv-seeds=1") == 0
    assert train(policy, book, tiny_model, tmp_path, *others, changed, "--kv-seeds=1") == 2
    assert f"was trained with {told}; give another --out" in capsys.readouterr().err


def test_long_work_is_told_where_there_is_no_terminal(
    book: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job, "_QUIET", 0.0)
    train("lkv", book, tiny_model, tmp_path, *LKV, "--kv-seeds=1")
    told = capsys.readouterr().out
    starts = [
        f"kvharness: reading {book}",
        f"kvharness: loading {tiny_model}",
        "kvharness: cutting the text into windows",
        "kvharness: reading: 1 of ",
        "kvharness: seed 0: 1 of 2",
    ]
    places = [told.find(start) for start in starts]
    assert -1 not in places
    assert places == sorted(places)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "sip", "--help"])
    text = capsys.readouterr().out
    for option in ("--text", "--out", "--kv-seeds", "--size", "--features", "--windows"):
        assert option in text
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "lkv, sip" in capsys.readouterr().out
