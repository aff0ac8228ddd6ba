from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.pretrained.gguf import Kind, bpe, merges, sentencepiece_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORDS = ["▁", "a", "b", "c", "ab", "bc", "▁a", "abc", "▁ab", "ca", "aa"]
BYTES = [f"<0x{number:02X}>" for number in range(256)]
PIECES = ["<bos>", "<eos>", "<unk>", "<tag>", *BYTES, *WORDS]
KINDS = [3, 3, 3, 4, *[6] * 256, *[1] * len(WORDS)]
SCORES = [-1000.0] * 260 + [-900.0] * 4 + [float(-i) for i in range(len(WORDS) - 4)]


def naive(text: str, pieces: Sequence[str], scores: Sequence[float]) -> list[str]:
    """SentencePiece by its rule: join the neighbours that make the piece of the highest score."""
    best = dict(zip(pieces, scores, strict=True))
    parts = list(text.replace(" ", "▁"))
    while True:
        joined = [(best.get(a + b), i) for i, (a, b) in enumerate(pairwise(parts))]
        found = [(-score, i) for score, i in joined if score is not None]
        if not found:
            return parts
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@given(text=st.text(alphabet="abc ", max_size=12))
def test_text_is_cut_as_sentencepiece_does(text: str) -> None:
    tokenizer = bpe(PIECES, SCORES, KINDS)
    found = tokenizer.encode(text)
    assert found.tokens == naive(text, PIECES, SCORES)
    assert tokenizer.decode(found.ids) == text


@given(text=st.text(max_size=8))
def test_what_is_no_piece_is_bytes_and_reads_back(text: str) -> None:
    tokenizer = bpe(PIECES, SCORES, KINDS)
    shown = text.replace("▁", " ")
    assert tokenizer.decode(tokenizer.encode(shown).ids) == shown


def test_marks_are_tokens_and_only_control_tokens_are_special() -> None:
    tokenizer = bpe(PIECES, SCORES, KINDS)
    assert tokenizer.encode("<bos>ab<tag>").tokens == ["<bos>", "ab", "<tag>"]
    assert tokenizer.decode(tokenizer.encode("<bos>ab<tag>").ids) == "ab<tag>"
    assert (Kind.CONTROL, Kind.USER_DEFINED) == (3, 4)


def test_merges_are_every_pair_that_makes_a_piece_best_first() -> None:
    found = merges(["a", "b", "ab", "abb", "bb"], [-9.0, -9.0, -2.0, -3.0, -1.0])
    assert found == [("b", "b"), ("a", "b"), ("a", "bb"), ("ab", "b")]


@pytest.mark.parametrize(("kind", "read"), [("llama", True), ("gpt2", False)])
def test_a_file_is_read_where_its_vocabulary_is_sentencepieces(
    kind: str,
    read: bool,  # noqa: FBT001 - a parameter
    tmp_path: Path,
) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "made.gguf", "llama")
    writer.add_tokenizer_model(kind)
    writer.add_token_list(PIECES)
    writer.add_token_scores(SCORES)
    writer.add_token_types(KINDS)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    tokenizer = sentencepiece_tokenizer(tmp_path / "made.gguf")
    assert (tokenizer is not None) == read
    if tokenizer is not None:
        assert (tokenizer.bos_token, tokenizer.eos_token) == ("<bos>", "<eos>")
        ids = tokenizer("abc a", add_special_tokens=False)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == naive("abc a", PIECES, SCORES)
