"""Prose to hide facts in: essays interleaved with a seeded grammar, or a file the user names."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from kvharness.errors import DataProblem

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterator
    from pathlib import Path

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SLOT = re.compile(r"\{(\w+)\}")
_PARAGRAPH = (4, 8)


class Filler:
    """An endless, seeded stream of sentences.

    Runs of one or two essay sentences alternate with runs of one or two grammar sentences, so
    that windows of 50 tokens hardly repeat between items although the essays do.

    Args:
        rng: the only source of randomness.
        haystack: a text file to draw consecutive sentences from instead.
        avoid: words that the sentences must not contain, such as the answers.
    """

    def __init__(
        self, rng: random.Random, *, haystack: Path | None = None, avoid: Collection[str] = ()
    ) -> None:
        self._rng = rng
        words = "|".join(re.escape(word) for word in avoid)
        self._avoid = re.compile(rf"\b(?:{words})\b", re.IGNORECASE) if words else None
        self._sentences = self._mixed() if haystack is None else self._from_file(haystack)
        self._left = 0

    def sentence(self) -> str:
        """The next sentence with the white space before it: a new paragraph now and then."""
        if self._left == 0:
            self._left = self._rng.randint(*_PARAGRAPH)
            separator = "\n\n"
        else:
            separator = " "
        self._left -= 1
        return separator + next(text for text in self._sentences if not self._holds(text))

    def _holds(self, text: str) -> bool:
        return self._avoid is not None and self._avoid.search(text) is not None

    def _mixed(self) -> Iterator[str]:
        rng, texts, frames = self._rng, essays(), grammar()
        while True:
            essay = texts[rng.randrange(len(texts))]
            start, run = rng.randrange(len(essay)), rng.randint(1, 2)
            yield from essay[start : start + run]
            for _ in range(rng.randint(1, 2)):
                yield frames.sentence(rng)

    def _from_file(self, path: Path) -> Iterator[str]:
        sentences = read_sentences(path)
        start = self._rng.randrange(len(sentences))
        while True:
            yield sentences[start % len(sentences)]
            start += 1


@cache
def essays() -> tuple[tuple[str, ...], ...]:
    """The essays that come with the package, as sentences."""
    folder = files("kvharness") / "data" / "essays"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".txt"))
    texts = ((folder / name).read_text(encoding="utf-8") for name in names)
    return tuple(split_sentences(text) for text in texts)


def split_sentences(text: str) -> tuple[str, ...]:
    return tuple(part for part in _SENTENCE_END.split(text.strip()) if part)


@cache
def read_sentences(path: Path) -> tuple[str, ...]:
    """The sentences of a user's text file.

    Raises:
        DataProblem: the file cannot be read as UTF-8 text or is too short to hide anything in.
    """
    try:
        sentences = split_sentences(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataProblem(f"--kv-haystack {path}: cannot be read: {reason}") from None
    if len(sentences) < 20:
        raise DataProblem(
            f"--kv-haystack {path}: found {len(sentences)} sentences, expected at least 20 of prose"
        )
    return sentences


class Grammar:
    """Sentence frames with slots, filled from word lists."""

    def __init__(self, frames: tuple[str, ...], lexicon: dict[str, list[str]]) -> None:
        self._frames = frames
        self._lexicon = lexicon

    def __len__(self) -> int:
        return len(self._frames)

    def narrowed(self, rng: random.Random, *, frames: int, words: int) -> Grammar:
        """Fewer frames and so many words for each slot: what one author would come back to."""
        return Grammar(
            tuple(rng.sample(self._frames, frames)),
            {slot: rng.sample(listed, words) for slot, listed in self._lexicon.items()},
        )

    def sentence(self, rng: random.Random) -> str:
        frame = self._frames[rng.randrange(len(self._frames))]
        filled = _SLOT.sub(lambda slot: rng.choice(self._lexicon[slot[1]]), frame)
        return filled[0].upper() + filled[1:]


@cache
def grammar() -> Grammar:
    """The grammar that comes with the package."""
    folder = files("kvharness") / "data" / "grammar"
    frames = (folder / "frames.txt").read_text(encoding="utf-8").splitlines()
    lexicon = json.loads((folder / "lexicon.json").read_text(encoding="utf-8"))
    return Grammar(tuple(line for line in frames if line.strip()), lexicon)
