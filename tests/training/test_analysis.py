"""`kvharness analyse` from traces to figures."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.cli.main import main
from kvharness_policies.sip.analysis.analyst import SHIPPED
from kvharness_policies.sip.analysis.ladder import measure

if TYPE_CHECKING:
    from pathlib import Path

FIGURES = {
    "training_convergence",
    "calibration_curve",
    "information_analysis",
    "attention_paradox",
    "oracle_ladder",
}
RUN = (
    "--policy=sip(weights='{out}'),position,random",
    "--kv-seeds=1",
    "--kv-items=2",
    "--kv-context=300",
    "--retention=0.5",
    "--kv-claims=off",
)


@pytest.fixture(scope="module")
def trained(book: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    source = ("--text", str(book), "--kv-model", str(tiny_model), "--out", str(out))
    sizes = ("--windows=60", "--layers=2", "--context=160", "--steps=3", "--kv-seeds=1")
    assert main(["train", "sip", *source, *sizes]) == 0
    return out


def analyse(*options: str) -> int:
    return main(["analyse", "sip", *options])


def measured(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def ladder() -> dict[str, object]:
    rung = {"mean": 0.5, "low": 0.4, "high": 0.6, "units": 9}
    rungs = [
        {"policy": policy, "retention": retention, **rung}
        for policy in ("random", "position", "sip", "oracle")
        for retention in ("0.1", "0.5")
    ]
    return {"what": "ladder", "metric": "recovered", "rungs": rungs}


def test_what_is_missing_is_measured_and_all_five_are_drawn(
    trained: Path, book: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, figures = tmp_path / "data", tmp_path / "figures"
    data.mkdir()
    (data / "ladder.json").write_text(json.dumps(ladder()))
    where = (f"--data={data}", f"--figures={figures}", "--context=160", "--steps=5")
    source = (f"--text={book}", f"--kv-model={tiny_model}", f"--out={trained}")
    assert analyse(*where, *source) == 0
    assert {file.stem for file in figures.glob("*.png")} == FIGURES
    assert {file.stem for file in figures.glob("*.pdf")} == FIGURES
    told = capsys.readouterr().out.splitlines()
    assert {line for line in told if line.endswith((".png", ".pdf"))} == {
        str(file) for file in figures.iterdir()
    }
    (scorer,) = measured(data, "calibration")["scorers"]
    passages = measured(data, "calibration")["passages"]
    assert len(scorer["counts"]) == passages
    # Every key-value head of both layers of the first passage, each token once.
    assert sum(scorer["counts"][0]) == 2 * 2 * 160
    before = {file.name: file.read_bytes() for file in (*data.iterdir(), *figures.iterdir())}
    assert analyse(*where) == 0
    assert before == {
        file.name: file.read_bytes() for file in (*data.iterdir(), *figures.iterdir())
    }


def test_what_was_measured_on_the_embedded_model_is_drawn(tmp_path: Path) -> None:
    assert analyse(f"--figures={tmp_path}") == 0
    assert {file.stem for file in tmp_path.glob("*.png")} == FIGURES
    variants = {each["variant"] for each in measured(SHIPPED, "convergence")["trainings"]}
    assert variants == {"small", "small-position", "1.7m"}
    bits = measured(SHIPPED, "information")["bits"]
    assert abs(sum(bits["permuted"]) / len(bits["permuted"])) < 0.005
    rungs = measured(SHIPPED, "ladder")["rungs"]
    assert {rung["policy"] for rung in rungs} == {"random", "position", "sip", "oracle"}


def test_text_that_goes_on_alike_agrees_wholly(
    trained: Path, book: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("convergence", "calibration", "information"):
        (data / f"{name}.json").write_text("{}")
    (data / "ladder.json").write_text(json.dumps(ladder()))
    where = (f"--data={data}", f"--figures={tmp_path}", "--context=160")
    source = (f"--text={book}", f"--kv-model={tiny_model}", f"--out={trained}")
    assert analyse(*where, *source) == 2, "the others hold nothing"
    for each in measured(data, "paradox")["agreements"]:
        start = each["diverged"]
        same = each["by_token"][:start]
        # The first token is the same in all texts.
        assert same
        assert min(same) == 1
        assert -1 <= each["spearman"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data={empty}"], "lacks convergence, calibration, information, paradox, ladder; to "),
        (["--data={empty}", "--store=x", "--text=y"], "also give --out"),
        (["--data={broken}"], "holds no measurement"),
    ],
)
def test_mistakes_are_told_in_a_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    broken.mkdir()
    for name in ("convergence", "calibration", "information", "paradox", "ladder"):
        (broken / f"{name}.json").write_text("[")
    given = [each.format(empty=empty, broken=broken) for each in options]
    assert analyse(*given, f"--figures={tmp_path / 'figures'}") == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_an_unknown_name_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyse", "spi"]) == 2
    assert "no installed package analyses 'spi'. Did you mean 'sip'?" in capsys.readouterr().err


def test_the_ladder_is_read_from_a_store(trained: Path, tiny_model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    options = [option.format(out=trained) for option in RUN]
    command = [sys.executable, "-m", "pytest", "suites/test_qa.py", *options]
    command += [f"--kv-model={tiny_model}", f"--kv-store={store}", "-q"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    rungs = measure(store, say=print)
    names = [rung.policy.partition("+")[0] for rung in rungs]
    assert names == ["random", "position", "sip", "oracle"]
    assert all(rung.low <= rung.mean <= rung.high and rung.units == 2 for rung in rungs)
