from __future__ import annotations

import sys
import time
from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness.discovery import registry
from kvharness.discovery.spec import PolicySpec
from kvharness.engine import speed
from kvharness.model.loaded import Runtime
from kvharness.pretrained.find import find_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def runtime(tiny_model: Path) -> Runtime:
    return Runtime.load(find_model(str(tiny_model)), device="cpu", dtype="float32")


def test_engine_and_plain_transformers_agree_on_every_cell(runtime: Runtime) -> None:
    known = registry.installed()
    cells = tuple(
        (registry.load(PolicySpec(name=name), known), Fraction(text))
        for name in ("snapkv", "knorm", "random", "position", "tova", "keydiff")
        for text in ("0.3", "0.75", "1")
    )
    grid = speed.Grid(
        context=tuple(range(10, 90)), question=tuple(range(200, 212)), cells=cells, steps=6
    )
    engine, plain = speed.by_engine(runtime, grid), speed.cell_by_cell(runtime, grid)
    assert engine.outputs == plain.outputs
    assert any(engine.outputs)
    assert min(engine.seconds, plain.seconds) > 0
    # Plain transformers ran in between: the model must be observed again afterwards.
    assert speed.by_engine(runtime, grid).outputs == engine.outputs


@pytest.mark.skipif(sys.platform != "linux", reason="other systems never forget a peak")
def test_the_peak_is_of_what_is_measured_alone() -> None:
    """A larger peak before it, such as that of loading a model, does not hide it."""
    large, small = 2**28, 2**26
    before = bytearray(large)
    before[::4096] = b"x" * (large // 4096)
    del before
    runtime = SimpleNamespace(device=torch.device("cpu"), clock=time.perf_counter)
    with speed.measuring(runtime) as measured:  # type: ignore[arg-type]
        held = bytearray(small)
        held[::4096] = b"x" * (small // 4096)
        del held
    assert small * 0.9 < measured.peak_bytes < large * 0.9
