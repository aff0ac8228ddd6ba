"""One grid both ways in one run: kvpress with a prefill for each cell, and our engine."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from kvharness import Protection

if TYPE_CHECKING:
    from kvharness.engine.speed import Grid
    from kvharness.model.loaded import Runtime
    from tests.parity.conftest import Stage

kvpress: Any = pytest.importorskip("kvpress")

from tests.parity.conftest import Stage as _Stage  # noqa: E402
from tests.parity.native import by_kvpress, ratio_of  # noqa: E402

#: The press and our policy of the same rule; TOVA's pins the last token, ours need not.
POLICIES = {
    "SnapKVPress(window_size=32)": "snapkv(window=32, kernel=5, pooling='avg')",
    "KnormPress()": "knorm",
    "KeyDiffPress()": "keydiff",
    "StreamingLLMPress()": "position",
    "TOVAPress()": "tova",
    "ExpectedAttentionPress()": "expected-attention",
}
RETENTIONS = tuple(Fraction(text) for text in ("0.1", "0.25", "0.5", "0.75"))
QUESTION, STEPS = 30, 10


def _grid(stage: Stage, names: list[str], retentions: tuple[Fraction, ...]) -> Grid:
    from kvharness.engine.speed import Grid

    filling = stage.runtime.encoder.ids(" and what else do you remember of it") * QUESTION
    return Grid(
        context=tuple(stage.ids),
        question=tuple(filling[:QUESTION]),
        cells=tuple((stage.load(name), retention) for name in names for retention in retentions),
        steps=STEPS,
        protection=Protection(sinks=0, recents=0),
    )


def _presses(names: list[str], retentions: tuple[Fraction, ...], tokens: int) -> list[Any]:
    from kvharness.contract import budget_of

    made = []
    for name in names:
        for retention in retentions:
            press = eval(name, vars(kvpress))  # noqa: S307 - as it is written in POLICIES
            press.compression_ratio = ratio_of(budget_of(retention, tokens), tokens)
            made.append(press)
    return made


def _compare(stage: Stage, names: list[str], retentions: tuple[Fraction, ...]) -> list[list[Any]]:
    """Outputs of kvpress, of its presses on our prefill, and of our policies; prints seconds."""
    from kvharness.engine.speed import by_engine

    presses = _presses(names, retentions, len(stage.ids))
    pressed = _grid(stage, [f"kvpress:{name}" for name in names], retentions)
    own = _grid(stage, [POLICIES[name] for name in names], retentions)
    runs = [
        by_kvpress(stage.runtime, pressed, presses),
        by_engine(stage.runtime, pressed),
        by_engine(stage.runtime, own),
    ]
    native, adapted, ours = (run.seconds for run in runs)
    print(  # noqa: T201 - the figures are what this is for
        f"\n{len(presses)} cells of {len(stage.ids)} tokens, {stage.runtime.dtype}: kvpress "
        f"{native:.2f} s, its presses on one prefill {adapted:.2f} s ({native / adapted:.1f}x), "
        f"our policies {ours:.2f} s ({native / ours:.1f}x)"
    )
    return [run.outputs for run in runs]


def _embedded(dtype: str, context: int) -> Stage:
    from kvharness.items.drawing import Drawing
    from kvharness.items.needle import needle_items
    from kvharness.model.loaded import Runtime
    from kvharness.pretrained.find import DEFAULT_MODEL, find_model

    runtime: Runtime = Runtime.load(find_model(DEFAULT_MODEL), dtype=dtype)
    (item,) = needle_items(Drawing(encoder=runtime.encoder, context=context, seed=0, count=1))
    return _Stage(runtime, list(item.context))


@pytest.mark.slow
def test_outputs_are_equal_in_float32(embedded: Stage) -> None:
    names = ["SnapKVPress(window_size=32)", "KnormPress()"]
    native, adapted, ours = _compare(embedded, names, (Fraction("0.25"), Fraction("0.5")))
    assert native == adapted == ours
    assert any(native)


@pytest.mark.slow
def test_masked_heads_answer_as_evicted_ones(embedded: Stage) -> None:
    """kvpress masks what AdaKV evicts; our caches do without it."""
    from kvharness.engine.speed import by_engine

    name = "AdaKVPress(press=SnapKVPress(window_size=32))"
    retentions = (Fraction("0.25"),)
    grid = _grid(embedded, [f"kvpress:{name}"], retentions)
    presses = _presses([name], retentions, len(embedded.ids))
    assert (
        by_engine(embedded.runtime, grid).outputs
        == by_kvpress(embedded.runtime, grid, presses).outputs
    )


@pytest.mark.kv_speed
@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_the_whole_grid(dtype: str) -> None:
    """24 cells of 2,048 tokens; in bfloat16 batches round differently, in float32 all is equal."""
    stage = _embedded(dtype, 2048)
    native, adapted, ours = _compare(stage, list(POLICIES), RETENTIONS)
    same = sum(a == b for a, b in zip(native, ours, strict=True))
    print(f"{same} of {len(native)} outputs of our policies are kvpress's")  # noqa: T201
    assert any(native)
    if dtype == "float32":
        assert native == adapted
