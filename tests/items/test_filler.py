from __future__ import annotations

import itertools
import json
import re
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.errors import DataProblem
from kvharness.items.drawing import Drawing
from kvharness.items.filler import Filler, essays, grammar, read_sentences, split_sentences
from kvharness.items.repetition import Novelty
from kvharness.items.suites import SUITES
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

SLOT = re.compile(r"\{(\w+)\}")
GRAMMAR = files("kvharness") / "data" / "grammar"
SEEDS = st.integers(0, 2**32)


def _sentences(seed: int, count: int, haystack: Path | None = None) -> list[str]:
    filler = Filler(Random(seed), haystack=haystack)
    return [filler.sentence() for _ in range(count)]


def _lexicon() -> dict[str, list[str]]:
    lexicon: dict[str, list[str]] = json.loads((GRAMMAR / "lexicon.json").read_text("utf-8"))
    return lexicon


def _frames() -> list[str]:
    return (GRAMMAR / "frames.txt").read_text("utf-8").splitlines()


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    path = tmp_path / "prose.txt"
    path.write_text("\n".join(f"This is sentence {n}." for n in range(30)), encoding="utf-8")
    return path


def test_the_package_has_12000_words_of_essays() -> None:
    assert sum(len(sentence.split()) for essay in essays() for sentence in essay) >= 12_000


def test_no_essay_sentence_occurs_twice() -> None:
    sentences = [sentence for essay in essays() for sentence in essay]
    assert len(set(sentences)) == len(sentences)


def test_the_package_has_500_different_frames() -> None:
    assert len(grammar()) >= 500
    assert len(set(_frames())) == len(_frames())


def test_every_slot_is_in_the_lexicon() -> None:
    lexicon = _lexicon()
    assert {slot for frame in _frames() for slot in SLOT.findall(frame)} == set(lexicon)
    assert all(lexicon.values())


def test_the_package_data_holds_neither_digits_nor_other_scripts() -> None:
    words = [word for entries in _lexicon().values() for word in entries]
    for text in (*_frames(), *words, *itertools.chain.from_iterable(essays())):
        assert text.isascii()
        assert not re.search(r"\d", text), text


@given(SEEDS)
def test_a_grammar_sentence_is_a_filled_frame(seed: int) -> None:
    sentence = grammar().sentence(Random(seed))
    assert sentence[0].isupper()
    assert sentence.endswith((".", "!", "?"))
    assert not set("{}") & set(sentence)


@given(SEEDS)
def test_the_same_seed_gives_the_same_sentences(seed: int) -> None:
    assert _sentences(seed, 20) == _sentences(seed, 20)
    assert _sentences(seed, 20) != _sentences(seed + 1, 20)


@given(SEEDS)
def test_at_most_two_essay_sentences_follow_each_other(seed: int) -> None:
    known = {sentence for essay in essays() for sentence in essay}
    kinds = [sentence.strip() in known for sentence in _sentences(seed, 60)]
    runs = [(essay, len(list(run))) for essay, run in itertools.groupby(kinds)]
    assert max(length for _, length in runs) == 2
    assert {essay for essay, _ in runs} == {True, False}


@given(SEEDS)
def test_paragraphs_have_four_to_eight_sentences(seed: int) -> None:
    sentences = _sentences(seed, 80)
    assert all(sentence.startswith(("\n\n", " ")) for sentence in sentences)
    starts = [number for number, text in enumerate(sentences) if text.startswith("\n\n")]
    assert starts[0] == 0
    assert {after - before for before, after in itertools.pairwise(starts)} <= {4, 5, 6, 7, 8}


def test_sentences_are_split_after_their_marks() -> None:
    assert split_sentences(" One. Two!\nThree?\n\n Four ") == ("One.", "Two!", "Three?", "Four")


def test_a_haystack_is_drawn_in_order_from_any_place(prose: Path) -> None:
    starts = set()
    for seed in range(20):
        drawn = [int(re.findall(r"\d+", text)[0]) for text in _sentences(seed, 40, prose)]
        assert drawn == [(drawn[0] + n) % 30 for n in range(40)]
        starts.add(drawn[0])
    assert len(starts) > 5


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"Only one sentence. And another.", r"found 2 sentences, expected at least 20"),
        (b"", r"found 0 sentences"),
        (b"\xff\xfe\x00binary. \x80", r"cannot be read: it is not UTF-8 text"),
    ],
    ids=["short", "empty", "binary"],
)
def test_a_file_that_is_no_haystack(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "haystack.txt"
    path.write_bytes(content)
    with pytest.raises(DataProblem, match=f"--kv-haystack .*haystack.txt: {told}"):
        read_sentences(path)


def test_a_haystack_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match=r"none\.txt: cannot be read: No such file"):
        Filler(Random(0), haystack=tmp_path / "none.txt").sentence()
    with pytest.raises(DataProblem, match=r"cannot be read: Is a directory"):
        read_sentences(tmp_path)


def test_filler_hardly_repeats_in_a_run(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(tokenizer)
    contexts = [
        item.context
        for name in ("needle", "qa", "summarization")
        for item in SUITES[name].draw(Drawing(encoder=encoder, context=1024, seed=0, count=12))
    ]
    assert Novelty.of(contexts).share >= 0.95
