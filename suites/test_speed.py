"""Speed as ratios within one session; run with nox -s perf, alone on the machine."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction
from multiprocessing import get_context
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.engine.speed import Grid
    from kvharness.model.loaded import Runtime

pytestmark = pytest.mark.kv_speed

GRID_POLICIES = ("snapkv", "knorm", "random", "position", "tova", "keydiff")
GRID_RETENTIONS = tuple(Fraction(text) for text in ("0.1", "0.25", "0.5", "0.75"))
CONTEXT, QUESTION, STEPS = 2048, 30, 10
#: What the grid must reach on two CPU cores; measured figures are in the README.
LEAST_RATIO = 9.0
TIMED = (
    "full",
    "random",
    "position",
    "streaming-llm",
    "prefill-attention",
    "h2o",
    "snapkv",
    "tova",
    "knorm",
    "keydiff",
)


def _runtime(config: pytest.Config, dtype: str) -> Runtime:
    from kvharness.model.loaded import Runtime
    from kvharness.pretrained.find import find_model
    from kvharness.run.settings import Settings

    settings = Settings.of(config)
    wanted = settings.dtype if dtype == "auto" else dtype
    return Runtime.load(find_model(settings.model), device=settings.device, dtype=wanted)


@pytest.fixture(scope="module")
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return _runtime(request.config, "auto")


def _policy(name: str) -> LoadedPolicy:
    from kvharness.discovery import registry
    from kvharness.discovery.spec import PolicySpec

    return registry.load(PolicySpec(name=name), registry.installed())


def _grid(runtime: Runtime) -> Grid:
    from kvharness.engine.speed import Grid
    from kvharness.items.drawing import Drawing
    from kvharness.items.needle import needle_items

    (item,) = needle_items(Drawing(encoder=runtime.encoder, context=CONTEXT, seed=0, count=1))
    question = item.questions[0]
    asked = (*question.question, *question.tail)
    filling = runtime.encoder.ids(" and what else do you remember of it") * QUESTION
    cells = [(_policy(name), retention) for name in GRID_POLICIES for retention in GRID_RETENTIONS]
    return Grid(
        context=item.context,
        question=(*filling[: max(0, QUESTION - len(asked))], *asked)[-QUESTION:],
        cells=tuple(cells),
        steps=STEPS,
    )


def test_grid_gives_equal_outputs(request: pytest.FixtureRequest) -> None:
    """In float32 the engine answers every cell as transformers does cell by cell."""
    from kvharness.engine.speed import by_engine, cell_by_cell

    runtime = _runtime(request.config, "float32")
    grid = _grid(runtime)
    assert by_engine(runtime, grid).outputs == cell_by_cell(runtime, grid).outputs


def test_grid_speed(runtime: Runtime, benchmark: Any) -> None:
    """The same grid both ways in the default dtype, in turn, and how much faster the engine is."""
    from kvharness.engine.speed import by_engine, cell_by_cell

    grid = _grid(runtime)
    by_engine(runtime, grid)
    turns = [(by_engine(runtime, grid), cell_by_cell(runtime, grid)) for _ in range(2)]
    benchmark.pedantic(by_engine, args=(runtime, grid), rounds=3)
    fast = median(engine.seconds for engine, _ in turns)
    slow = median(plain.seconds for _, plain in turns)
    benchmark.extra_info.update(ratio=slow / fast, seconds_cell_by_cell=slow)
    print(  # noqa: T201 - the figures are what this session is for
        f"\n{len(grid.cells)} cells of {CONTEXT} tokens, {runtime.dtype} on {runtime.device}: "
        f"cell by cell {slow:.1f} s, engine {fast:.2f} s, ratio {slow / fast:.1f}x"
    )
    assert slow / fast >= LEAST_RATIO


def _peak(way: str, model: str, device: str) -> int:
    """Peak memory of one way in a fresh process: freed memory would hide it in an old one."""
    from kvharness.engine import speed
    from kvharness.model.loaded import Runtime
    from kvharness.pretrained.find import find_model

    runtime = Runtime.load(find_model(model), device=device)
    grid = _grid(runtime)
    if way == "cell_by_cell":
        # Its cells come one after the other, so the largest one makes the peak.
        grid = replace(grid, cells=grid.cells[len(GRID_RETENTIONS) - 1 : len(GRID_RETENTIONS)])
    peak: int = getattr(speed, way)(runtime, grid).peak_bytes
    return peak


def test_grid_memory(request: pytest.FixtureRequest, benchmark: Any) -> None:
    """Peak memory on top of the model, both ways, in the default dtype."""
    from kvharness.run.settings import Settings

    settings = Settings.of(request.config)
    peaks = {}
    for way in ("by_engine", "cell_by_cell"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peaks[way] = pool.submit(_peak, way, settings.model, settings.device).result()
    benchmark.extra_info.update(peaks)
    benchmark.pedantic(lambda: None, rounds=1)
    engine, plain = (peaks[way] / 2**20 for way in ("by_engine", "cell_by_cell"))
    print(f"\npeak memory: cell by cell {plain:.0f} MiB, engine {engine:.0f} MiB")  # noqa: T201
    assert min(peaks.values()) > 0


@pytest.fixture(scope="module")
def table() -> Iterator[list[list[str]]]:
    rows: list[list[str]] = []
    yield rows
    headers = [
        "policy at 0.25",
        "select ms",
        "per prefill",
        "tokens/s",
        "to full",
        "MiB",
        "to full",
    ]
    print("\n" + tabulate(rows, headers=headers, disable_numparse=True))  # noqa: T201


@pytest.mark.parametrize("name", TIMED)
def test_policy_speed(name: str, runtime: Runtime, benchmark: Any, table: list[list[str]]) -> None:
    """Select time, decoding speed and cache bytes of one policy against the full cache."""
    from kvharness.engine.answer import answer
    from kvharness.engine.speed import choose, request
    from kvharness.model.context_reading import prefill

    grid, loaded = _grid(runtime), _policy(name)
    retention = Fraction(1) if name == "full" else Fraction("0.25")
    prefilled, seconds = prefill(runtime, grid.context, loaded.policy.needs)
    asked = request(prefilled, grid.question, STEPS)
    full = choose(prefilled, _policy("full"), Fraction(1))

    def decode(kept: Any) -> tuple[float, int]:
        start = time.perf_counter()
        (result,) = answer(runtime, asked, [kept])
        return time.perf_counter() - start, result.cache_bytes

    kept = benchmark.pedantic(
        choose, args=(prefilled, loaded, retention), rounds=5, warmup_rounds=1
    )
    decode(kept)
    turns = [(decode(kept), decode(full)) for _ in range(5)]
    mine = median(turn[0][0] for turn in turns)
    theirs = median(turn[1][0] for turn in turns)
    size, whole = turns[0][0][1], turns[0][1][1]
    select = benchmark.stats.stats.median
    figures = {
        "select_ms": select * 1e3,
        "select_per_prefill": select / seconds,
        "tokens_per_second": STEPS / mine,
        "speed_to_full": theirs / mine,
        "cache_mib": size / 2**20,
        "bytes_to_full": size / whole,
    }
    benchmark.extra_info.update(figures)
    table.append([name, *(f"{figure:.3g}" for figure in figures.values())])
    assert size == pytest.approx(whole * float(retention), rel=0.01)
