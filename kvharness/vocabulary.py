"""Tokenizers out of GGUF files whose vocabulary is SentencePiece's: Gemma's."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

_SPACE = "▁"
#: How GGUF calls such a vocabulary.
_SENTENCEPIECE = "llama"


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
