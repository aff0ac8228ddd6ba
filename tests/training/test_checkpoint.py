from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kvharness.errors import TrainingProblem
from kvharness.pretrained.find import ModelSource
from kvharness.training.checkpoint import (
    Checkpoint,
    all_checkpoints,
    find_checkpoint,
    write_checkpoint,
)
from kvharness.training.manifest import Manifest

SOURCE = ModelSource(name="tiny", path=Path("tiny"), digest="0123456789abcdef")
MANIFEST = Manifest(
    policy="sip",
    variant="small",
    seed=0,
    model="tiny",
    model_digest=SOURCE.digest,
    corpus="feedbeef",
    sources=("book.txt",),
    tokens=1000,
    code="c0de",
    versions={"torch": "2"},
    parameters={"shape": {"width": 8}},
    curves=({"step": 1, "train": 0.5},),
    seconds=1.5,
)
WEIGHTS = {"a": torch.tensor([[0.1, -2.0]]), "b": torch.tensor(3.0)}


def find(*roots: Path, seed: int = 0, source: ModelSource = SOURCE) -> Checkpoint:
    return find_checkpoint(roots, policy="sip", variant="small", source=source, seed=seed)


def test_weights_come_back_in_half_precision_with_their_manifest(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, MANIFEST, WEIGHTS)
    found = find(tmp_path)
    assert found.manifest == MANIFEST
    tensors = found.tensors()
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        "a": torch.float32,
        "b": torch.float32,
    }
    assert torch.equal(tensors["a"], WEIGHTS["a"].half().float())
    assert len(found.digest) == 16


def test_the_digest_is_that_of_the_weights(tmp_path: Path) -> None:
    digests = {
        write_checkpoint(tmp_path / str(n), replace(MANIFEST, seconds=n), weights).digest
        for n, weights in enumerate((WEIGHTS, WEIGHTS, {**WEIGHTS, "b": torch.tensor(4.0)}))
    }
    assert len(digests) == 2


def test_the_first_folder_that_has_them_wins(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_checkpoint(tmp_path / name, replace(MANIFEST, tokens=len(name)), WEIGHTS)
    assert find(tmp_path / "none", tmp_path / "two", tmp_path / "one").file.parts[-3] == "two"


def test_a_missing_seed_says_which_there_are_and_what_trains_it(tmp_path: Path) -> None:
    for seed in (0, 2, 10):
        write_checkpoint(tmp_path, replace(MANIFEST, seed=seed), WEIGHTS)
    write_checkpoint(tmp_path, replace(MANIFEST, seed=5, variant="small-keys"), WEIGHTS)
    message = (
        r"no small weights of seed 5 for the model tiny \(0123456789abcdef\): there are seeds "
        r"0, 2, 10; train them with kvharness train sip --kv-model tiny --kv-seeds 6 --text FILE "
        r"--out DIR, and run sip\(weights='DIR'\)"
    )
    with pytest.raises(TrainingProblem, match=message):
        find(tmp_path, seed=5)
    with pytest.raises(TrainingProblem, match="there are none for it"):
        find(tmp_path, source=replace(SOURCE, digest="other"))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    made = write_checkpoint(tmp_path, MANIFEST, WEIGHTS)
    made.file.write_bytes(made.file.read_bytes()[:40])
    with pytest.raises(TrainingProblem, match=r"sip-small-s0.safetensors: cannot be read"):
        find(tmp_path).tensors()
    made.file.with_suffix(".json").write_text("{}")
    with pytest.raises(TrainingProblem, match=r"sip-small-s0.json: is no manifest"):
        find(tmp_path)


def test_files_under_a_name_that_is_not_theirs_are_refused(tmp_path: Path) -> None:
    made = write_checkpoint(tmp_path, MANIFEST, WEIGHTS)
    for suffix in (".safetensors", ".json"):
        made.file.with_suffix(suffix).rename(made.file.with_name(f"sip-small-s3{suffix}"))
    told = r"s3.safetensors: its manifest is of 0123456789abcdef.sip-small-s0.safetensors; put back"
    with pytest.raises(TrainingProblem, match=told):
        find(tmp_path, seed=3)
    with pytest.raises(TrainingProblem, match=told):
        all_checkpoints(tmp_path, policy="sip", source=SOURCE)


def test_a_manifest_has_types(tmp_path: Path) -> None:
    made = write_checkpoint(tmp_path, MANIFEST, WEIGHTS)
    content = json.loads(MANIFEST.text())
    for name, wrong in (("seed", "0"), ("parameters", [1]), ("policy", None)):
        made.file.with_suffix(".json").write_text(json.dumps({**content, name: wrong}))
        with pytest.raises(TrainingProblem, match=rf"is no manifest of .*\({name} is not of type"):
            find(tmp_path)


@pytest.mark.parametrize(
    ("parameters", "weights", "told"),
    [
        ({}, {"weight": torch.ones(1, 2)}, "KeyError: 'width'"),
        ({"width": 2}, {"weight": torch.ones(1, 3)}, "RuntimeError: .*size mismatch for weight"),
        ({"width": 2}, {}, "RuntimeError: .*Missing key"),
        ({"width": "2"}, {"weight": torch.ones(1, 2)}, "TypeError"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    parameters: dict[str, int], weights: dict[str, torch.Tensor], told: str, tmp_path: Path
) -> None:
    made = write_checkpoint(tmp_path, replace(MANIFEST, parameters=parameters), weights)

    def build(given: dict[str, int]) -> torch.nn.Linear:
        return torch.nn.Linear(given["width"], 1, bias=False)

    with pytest.raises(TrainingProblem, match=rf"sip-small-s0.safetensors: does not fit .*{told}"):
        made.network(build)
    right = write_checkpoint(
        tmp_path, replace(MANIFEST, parameters={"width": 2}), {"weight": torch.ones(1, 2)}
    )
    assert right.network(build).weight.tolist() == [[1.0, 1.0]]
