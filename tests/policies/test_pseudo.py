"""How near made-up queries are to true ones: against naive versions, and from text to figure."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import Probe, Queries
from kvharness.cli.main import main
from kvharness.model.attention import PrefillReader, reading
from kvharness.model.context_reading import prefill
from kvharness.policy.observation.probe import Material
from kvharness.training import Window
from kvharness_policies.dapq import DapQ
from kvharness_policies.pseudo.nearness import (
    KINDS,
    TRUE,
    Given,
    Nearness,
    budgets,
    first_windows,
    measure,
    recalled,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from kvharness.model.loaded import Runtime

CONTEXT, QUERIES = 90, 8
TOKENS = tuple(200 + 7 * j % 1000 for j in range(CONTEXT + QUERIES))


def make_window(passage: str = "a", tokens: tuple[int, ...] = TOKENS) -> Window:
    return Window(passage=passage, tokens=tokens, head=0, context=CONTEXT, held_out=False)


def naive_pass(runtime: Runtime, ids: tuple[int, ...], start: int) -> list[tuple[Tensor, Tensor]]:
    """One plain causal pass over context and ids: queries, and attention by loops, a layer."""
    count = len(ids)
    asked: dict[int, Tensor] = {}
    reader = PrefillReader([lambda call: asked.update({call.layer: call.query[0, :, -count:]})])
    with torch.inference_mode(), reading(reader):
        runtime.model.get_decoder()(
            input_ids=torch.tensor([[*TOKENS[:CONTEXT], *ids]]),
            position_ids=torch.tensor([[*range(CONTEXT), *range(start, start + count)]]),
            use_cache=False,
        )
    found = []
    for index, layer in reader.layers.items():
        paid = torch.zeros(2, CONTEXT)
        for head in range(4):
            for row in range(count):
                keys = layer.keys[head // 2, : CONTEXT + row + 1]
                weights = (keys @ asked[index][head, row] * layer.scaling).softmax(dim=0)
                paid[head // 2] += weights[:CONTEXT] / 2
        found.append((asked[index], paid))
    return found


def naive_cosine(one: Tensor, two: Tensor) -> float:
    rows: list[list[list[float]]] = [each.flatten(0, 1).tolist() for each in (one, two)]
    pairs = zip(*rows, strict=True)
    cosines: list[float] = [
        sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
        for a, b in pairs
    ]
    return sum(cosines) / len(cosines)


def naive_recall(mine: Tensor, true: Tensor, budget: int) -> float:
    shares = []
    for one, two in zip(mine.tolist(), true.tolist(), strict=True):
        best = [
            sorted(range(4, len(row) - 16), key=lambda j, row=row: -row[j])[:budget]  # type: ignore[misc]
            for row in (one, two)
        ]
        shares.append(len({*best[0]} & {*best[1]}) / budget)
    return sum(shares) / len(shares)


def ids_of(runtime: Runtime, content: str) -> tuple[int, ...]:
    if content == TRUE:
        return TOKENS[CONTEXT:]
    probe: Probe = DapQ(queries=QUERIES, content=content).probe
    material = Material(context=TOKENS[:CONTEXT], encoder=runtime.encoder, vocabulary=1502)
    return probe.parts(material)[0].ids


def test_each_kind_is_compared_with_the_true_continuation(runtime: Runtime) -> None:
    found = measure(runtime, [make_window()], progress=lambda steps: steps)
    assert [(each.content, each.place) for each in found] == list(KINDS)
    true = naive_pass(runtime, TOKENS[CONTEXT:], CONTEXT)
    for each in found[:-1]:
        start = {"right": CONTEXT, "wrong": 0}[each.place]
        mine = naive_pass(runtime, ids_of(runtime, each.content), start)
        pairs = list(zip(mine, true, strict=True))
        cosine = sum(naive_cosine(m, t) for (m, _), (t, _) in pairs) / 2
        assert each.cosine == pytest.approx(cosine, abs=1e-4)
        for budget, share in each.recall.items():
            recall = sum(naive_recall(m, t, budget) for (_, m), (_, t) in pairs) / 2
            # Of two tokens with almost the same attention either may be the last one.
            assert share == pytest.approx(recall, abs=0.26 / budget)
    assert all(each.cosine < 0.999 for each in found)


def test_the_control_is_the_window_that_snapkv_asks(runtime: Runtime) -> None:
    last = measure(runtime, [make_window()], progress=lambda steps: steps)[-1]
    context, _ = prefill(runtime, TOKENS[:CONTEXT], frozenset({Queries(QUERIES)}))
    true = naive_pass(runtime, TOKENS[CONTEXT:], CONTEXT)
    cosines = []
    for layer, (queries, _) in zip(context.layers.values(), true, strict=True):
        cosines.append(naive_cosine(layer.observed[Queries(QUERIES)], queries))
    assert last.cosine == pytest.approx(sum(cosines) / 2, abs=1e-4)


def test_what_is_recalled_leaves_out_the_protected() -> None:
    rng = torch.Generator().manual_seed(0)
    mine, true = torch.rand(2, 3, 60, generator=rng)
    mine[:, :4] = true[:, :4] = mine[:, -16:] = true[:, -16:] = 9.0
    for budget in (1, 5, 40):
        due = naive_recall(mine, true, budget)
        assert float(recalled(mine, true, budget).mean()) == pytest.approx(due)
    assert recalled(true, true, 7).tolist() == [1, 1, 1]


def test_budgets_leave_something_to_choose() -> None:
    assert budgets(37) == (16,)
    assert budgets(36) == ()
    assert budgets(1024) == (16, 32, 64, 128, 256)


def test_one_window_of_a_passage_counts() -> None:
    windows = [make_window("a"), make_window("a", TOKENS[::-1]), make_window("b"), make_window("c")]
    assert first_windows(windows, most=2) == [windows[0], windows[2]]


def test_the_true_text_is_read_as_it_is(runtime: Runtime) -> None:
    material = Material(context=TOKENS[:CONTEXT], encoder=runtime.encoder, vocabulary=1502)
    (part,) = Given(ids=(5, 6, 7)).parts(material)
    assert (part.ids, part.first, part.last) == ((5, 6, 7), 0, CONTEXT)


def test_from_text_to_one_file_and_one_figure(
    book: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, figures = tmp_path / "data", tmp_path / "figures"
    where = ["analyse", "dapq", f"--data={data}", f"--figures={figures}"]
    sizes = ["--context=160", "--queries=8", "--passages=3"]
    assert main([*where, *sizes, f"--text={book}", f"--kv-model={tiny_model}"]) == 0
    files = [figures / "query_nearness.png", figures / "query_nearness.pdf"]
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.endswith((".png", ".pdf"))] == [str(f) for f in files]
    content: dict[str, Any] = json.loads((data / "nearness.json").read_text())
    assert (content["what"], content["context"], content["queries"]) == ("nearness", 160, 8)
    rows = [Nearness.from_dict(each) for each in content["nearness"]]
    assert [row.as_dict() for row in rows] == [
        {**each, "recall": {int(size): share for size, share in each["recall"].items()}}
        for each in content["nearness"]
    ]
    assert len(rows) == 3 * len(KINDS)
    assert len({row.passage for row in rows}) == 3
    assert {tuple(row.recall) for row in rows} == {(16, 32, 64, 128)}
    before = [file.read_bytes() for file in files]
    # Now it is drawn from the file, without text or model.
    assert main(where) == 0
    assert before == [file.read_bytes() for file in files]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "lacks nearness; to measure that, also give --text"),
        (["--text=x", "--context=63"], "--context 63: expected 64 or more"),
        (["--text=x", "--queries=0"], "--queries 0: expected 1 or more"),
        (["--text=x", "--passages=1"], "--passages 1: expected 2 or more"),
    ],
)
def test_mistakes_are_told_in_a_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", "dapq", f"--data={tmp_path}", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_broken_measurement_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nearness.json").write_text("[]")
    assert main(["analyse", "dapq", f"--data={tmp_path}"]) == 2
    assert "nearness.json: holds no measurement; remove it" in capsys.readouterr().err
