"""Keep masks beside a store, named by their digests, so that two runs can be compared by entry."""

from __future__ import annotations

import io
import os
import secrets
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from kvharness.errors import StoreProblem

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FOLDER = "masks"


def write_mask(store: Path, digest: str, mask: NDArray[np.bool_]) -> None:
    """Keep a mask ``[layers, K, n]``, once for each digest; about 6 KiB for 92,160 entries.

    Raises:
        StoreProblem: the folder cannot be written.
    """
    path = _path(store, digest)
    if path.exists():
        return
    draft = path.with_name(f".{digest}-{os.getpid()}-{secrets.token_hex(2)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            np.savez_compressed(file, mask=np.packbits(mask), shape=np.array(mask.shape))
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise StoreProblem(f"cannot write the mask {str(path)!r}: {error.strerror}") from error


def read_mask(store: Path, digest: str) -> NDArray[np.bool_] | None:
    """A mask that was kept; None where it was not, or where its file is damaged."""
    try:
        # Through memory: numpy leaves the file of a damaged archive open.
        content = io.BytesIO(_path(store, digest).read_bytes())
        with np.load(content, allow_pickle=False) as found:
            shape = tuple(int(size) for size in found["shape"])
            count = int(np.prod(shape))
            return np.unpackbits(found["mask"], count=count).astype(bool).reshape(shape)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def shared_entries(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Share of the kept entries that both keep; 0 where the masks have different shapes."""
    if first.shape != second.shape:
        return 0.0
    most = max(int(first.sum()), int(second.sum()))
    return float((first & second).sum() / most) if most else 1.0


def _path(store: Path, digest: str) -> Path:
    return store / FOLDER / f"{digest}.npz"
