"""From the GGUF file of an embedded model to a folder that transformers loads."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kvharness.vocabulary import sentencepiece_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence


def convert(weights: Sequence[Path], path: Path) -> None:
    """De-quantise the parts of a GGUF file into safetensors in a folder of their own."""
    if len(weights) == 1:
        _convert_file(weights[0], path)
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        whole = Path(folder, "model.gguf")
        with whole.open("wb") as joined:
            for part in weights:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined)
        _convert_file(whole, path)


def _convert_file(weights: Path, path: Path) -> None:
    """In float32, which holds the de-quantised values exactly."""
    import torch  # noqa: PLC0415 - only needed once
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    folder, gguf = str(weights.parent), weights.name
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf, dtype=torch.float32)
    config = copy.deepcopy(loaded.config)
    # A model that remembers its quantisation refuses to be saved.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    work = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-")
    plain.save_pretrained(work)
    tokenizer = sentencepiece_tokenizer(weights)
    (tokenizer or AutoTokenizer.from_pretrained(folder, gguf_file=gguf)).save_pretrained(work)
    shutil.rmtree(path, ignore_errors=True)
    # Renaming is atomic: a killed conversion never leaves half a model under the final name.
    Path(work).rename(path)
