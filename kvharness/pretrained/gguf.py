"""From the GGUF file of an embedded model to a folder that transformers loads."""

from __future__ import annotations

import copy
import shutil
import tempfile
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast


_SPACE = "▁"
#: How GGUF calls such a vocabulary.
_SENTENCEPIECE = "llama"


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


class Kind(IntEnum):
    """Types of tokens in a GGUF file that are no ordinary pieces of text."""

    CONTROL = 3
    USER_DEFINED = 4


def sentencepiece_tokenizer(weights: Path) -> PreTrainedTokenizerFast | None:
    """The tokenizer of a GGUF file with a SentencePiece vocabulary; None for one of another kind.

    transformers 5.17 takes 100 seconds for Gemma's and leaves out the merges of most words: "The
    capital of France is" becomes 10 tokens instead of 5.
    """
    from gguf import GGUFReader  # noqa: PLC0415 - only needed once
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - slow to import

    fields = GGUFReader(weights).fields
    if fields["tokenizer.ggml.model"].contents() != _SENTENCEPIECE:
        return None
    pieces: list[str] = fields["tokenizer.ggml.tokens"].contents()
    kinds: list[int] = fields["tokenizer.ggml.token_type"].contents()
    raw = bpe(pieces, fields["tokenizer.ggml.scores"].contents(), kinds)
    named = {
        name: pieces[fields[f"tokenizer.ggml.{key}_token_id"].contents()]
        for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"))
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, clean_up_tokenization_spaces=False, **named
    )


def bpe(pieces: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> Any:
    """A byte-falling-back BPE that merges as SentencePiece does: the best piece first."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers  # noqa: PLC0415

    model = models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges(pieces, scores),
        unk_token="<unk>",  # noqa: S106 - no password
        fuse_unk=True,
        byte_fallback=True,
    )
    made = Tokenizer(model)
    made.normalizer = normalizers.Replace(" ", _SPACE)
    made.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    for kind, special in ((Kind.CONTROL, True), (Kind.USER_DEFINED, False)):
        given = [piece for piece, each in zip(pieces, kinds, strict=True) if each == kind]
        made.add_tokens([AddedToken(piece, normalized=False, special=special) for piece in given])
    return made


def merges(pieces: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every pair of pieces that make a piece, that of the highest score first."""
    rank = {piece: index for index, piece in enumerate(pieces)}
    found = [
        (-score, rank[piece[:cut]], rank[piece[cut:]])
        for piece, score in zip(pieces, scores, strict=True)
        for cut in range(1, len(piece))
        if piece[:cut] in rank and piece[cut:] in rank
    ]
    return [(pieces[left], pieces[right]) for _, left, right in sorted(found)]
