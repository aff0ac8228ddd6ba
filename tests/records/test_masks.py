from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kvharness.errors import StoreProblem
from kvharness.records.masks import FOLDER, read_mask, shared_entries, write_mask

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MASKS = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=9))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(MASKS, st.integers(0, 2**32))
def test_a_mask_comes_back(tmp_path: Path, mask: NDArray[np.bool_], number: int) -> None:
    name = f"{hashlib.sha256(mask.tobytes()).hexdigest()[:16]}-{mask.shape}-{number}"
    write_mask(tmp_path, name, mask)
    found = read_mask(tmp_path, name)
    assert found is not None
    assert found.shape == mask.shape
    assert (found == mask).all()


def test_what_was_not_kept_or_is_damaged_is_none(tmp_path: Path) -> None:
    assert read_mask(tmp_path, "nothing") is None
    mask = np.ones((2, 2, 8), dtype=bool)
    write_mask(tmp_path, "name", mask)
    (path,) = (tmp_path / FOLDER).iterdir()
    for content in (b"", b"PK\3\4", path.read_bytes()[:-40]):
        path.write_bytes(content)
        assert read_mask(tmp_path, "name") is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file")
    with pytest.raises(StoreProblem, match="cannot write the mask"):
        write_mask(tmp_path, "name", np.ones((1, 1, 1), dtype=bool))


@given(MASKS)
def test_shared_entries(mask: NDArray[np.bool_]) -> None:
    assert shared_entries(mask, mask) == 1
    other = mask.copy()
    other.flat[0] = not other.flat[0]
    both = sum(bool(a and b) for a, b in zip(mask.flat, other.flat, strict=True))
    assert shared_entries(mask, other) == pytest.approx(both / max(mask.sum(), other.sum()))
    assert shared_entries(mask, mask[..., :-1]) == 0
