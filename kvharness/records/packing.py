"""Recordings: stores that are compressed, so that they can be kept under version control."""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING

from kvharness.errors import StoreProblem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKED = ".jsonl.xz"
_PIECE = 2**24


def content(path: Path) -> tuple[bytes, str]:
    """What a file of a store holds, and what is wrong with it as a file.

    Of a packed one that is cut short or damaged it is what precedes that place.

    Raises:
        OSError: it cannot be read.
    """
    raw = path.read_bytes()
    if not path.name.endswith(PACKED):
        return raw, ""
    parts, wrong = [], ""
    try:
        for piece in _pieces(raw):
            parts.append(piece)  # noqa: PERF402 - what precedes an error counts
    except lzma.LZMAError as error:
        wrong = f"damaged or not an xz file ({error}): what follows is lost; pack the store again"
    except EOFError:
        wrong = "cut short: what follows is lost; pack the store again"
    return b"".join(parts), wrong


def _pieces(raw: bytes) -> Iterator[bytes]:
    """Decompressed, stream by stream: xz files may stand end to end, padded with zeros.

    Raises:
        LZMAError: what follows is damaged.
        EOFError: what follows is missing.
    """
    while True:
        reader = lzma.LZMADecompressor()
        while not reader.eof and (raw or not reader.needs_input):
            yield reader.decompress(raw, max_length=_PIECE)
            raw = b""
        if not reader.eof:
            raise EOFError
        raw = reader.unused_data.lstrip(b"\0")
        if not raw:
            return


def is_packed(store: Path) -> bool:
    """Whether a store is a recording, which no run should add to."""
    return any(store.glob(f"*{PACKED}"))


def pack(source: Path, target: Path) -> int:
    """Compress the files of a store into a new folder, some 14 times smaller; returns its bytes.

    Raises:
        StoreProblem: the source holds no records, or one of the two cannot be used.
    """
    try:
        # A plain file comes after its packed copy, which was made when it was shorter.
        files = [*sorted(source.glob(f"*{PACKED}")), *sorted(source.glob("*.jsonl"))]
        chosen = {path.name.removesuffix(".xz"): path for path in files if path.is_file()}
        if not chosen:
            raise StoreProblem(f"{str(source)!r} holds no .jsonl files; give what --kv-store wrote")
        target.mkdir(parents=True, exist_ok=True)
        return sum(_pack(path, target) for path in chosen.values())
    except OSError as error:
        raise StoreProblem(
            f"cannot pack {str(source)!r} into {str(target)!r}: {error.strerror or error}"
        ) from error


def _pack(path: Path, target: Path) -> int:
    if path.name.endswith(PACKED):
        # A recording that a run added to.
        return (target / path.name).write_bytes(path.read_bytes())
    packed = lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    return (target / f"{path.stem}{PACKED}").write_bytes(packed)
