from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness import Boundaries
from kvharness.model.context_reading import prefill
from kvharness.policy.observation.sentence_ends import boundaries
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvharness.model.loaded import Runtime

CLOSING = "\"')]"


@pytest.fixture(scope="module")
def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer)


def naive(pieces: Iterable[str]) -> list[bool]:
    """Character by character: whether a sentence or line ends inside each piece."""
    text = "".join(pieces)
    ends = [False] * len(text)
    for place, character in enumerate(text):
        if character == "\n":
            ends[place] = True
        if character in ".!?":
            last = place
            while last + 1 < len(text) and text[last + 1] in CLOSING:
                last += 1
            if last + 1 == len(text) or text[last + 1].isspace():
                ends[last] = True
    found, start = [], 0
    for piece in pieces:
        found.append(any(ends[start : start + len(piece)]))
        start += len(piece)
    return found


def test_sentences_and_lines_end_where_they_do(encoder: Encoder) -> None:
    text = 'It cost 3.50 a day. "Why?" she asked.\nRecord 7: blue\nRecord 8: green'
    ids = encoder.ids(text)
    groups, current = [], ""
    for token, end in zip(ids, boundaries(encoder, ids).tolist(), strict=True):
        current += encoder.text((token,))
        if end:
            groups.append(current)
            current = ""
    assert groups == ["It cost 3.50 a day.", ' "Why?"', " she asked.", "\n", "Record 7: blue\n"]
    assert current == "Record 8: green"


@given(text=st.text(alphabet="ab .!?\"')\n5é", max_size=40))
def test_every_end_is_found(text: str, tokenizer: Any) -> None:
    encoder = Encoder(tokenizer)
    ids = encoder.ids(text)
    pieces = [encoder.text((token,)) for token in ids]
    if "".join(pieces) != text:
        return  # a character of several tokens: no piece is text
    assert boundaries(encoder, ids).tolist() == naive(pieces)


def test_no_tokens_no_ends(encoder: Encoder) -> None:
    assert boundaries(encoder, ()).tolist() == []


def test_a_prefill_tells_them_where_they_are_needed(runtime: Runtime) -> None:
    ids = runtime.encoder.ids("One line.\nAnother line. And more")
    told, _ = prefill(runtime, ids, frozenset({Boundaries()}))
    due = boundaries(runtime.encoder, ids)
    assert bool(due.any())
    for layer in told.layers.values():
        assert torch.equal(layer.observed[Boundaries()], due)
