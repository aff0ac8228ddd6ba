from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvharness.errors import DataProblem, UsageProblem
from kvharness.items.drawing import Drawing
from kvharness.items.needle import needle_items
from kvharness.training.corpus import Corpus, Document
from kvharness.training.window import PASSAGE, check_disjoint, cut
from tests.prose import prose

if TYPE_CHECKING:
    from kvharness.model.loaded import Runtime

CONTEXT, AHEAD = 100, 20


def corpus(*texts: str) -> Corpus:
    named = enumerate(texts)
    return Corpus(documents=tuple(Document(name=f"d{n}", text=text) for n, text in named))


def test_windows_are_head_and_consecutive_text(runtime: Runtime) -> None:
    encoder, text = runtime.encoder, " ".join(prose(8000).split())
    windows = cut(corpus(text), encoder, context=CONTEXT, ahead=AHEAD)
    ids = encoder.ids(f"{text}\n\n")
    step = CONTEXT + AHEAD - len(encoder.head)
    assert len(windows) == len(ids) // step
    for number, window in enumerate(windows):
        assert window.tokens[: window.head] == encoder.head
        assert window.tokens[window.head :] == ids[number * step : (number + 1) * step]
        assert window.context == CONTEXT
        assert window.passage == f"d0#{number // PASSAGE}"


def test_each_eighth_passage_is_held_out_whole(runtime: Runtime) -> None:
    windows = cut(
        corpus(prose(6000), prose(4000, 1)), runtime.encoder, context=CONTEXT, ahead=AHEAD
    )
    out = {window.passage for window in windows if window.held_out}
    seen = {window.passage for window in windows if not window.held_out}
    assert not out & seen
    assert len(out) == (len(out) + len(seen)) // 8
    assert {name.partition("#")[0] for name in out} == {"d0", "d1"}


def test_documents_never_share_a_window(runtime: Runtime) -> None:
    short = [prose(30, seed) for seed in range(4)]
    with pytest.raises(DataProblem, match=r"makes 0 windows of 120 tokens; expected at least"):
        cut(corpus(*short), runtime.encoder, context=CONTEXT, ahead=AHEAD)


def test_text_of_the_suites_is_refused(runtime: Runtime) -> None:
    items = needle_items(Drawing(encoder=runtime.encoder, context=400, seed=0, count=2))
    mixed = corpus(prose(8000), f"{prose(200, 1)}\n\n{items[1].text}\n\n{prose(8000, 2)}")
    windows = cut(mixed, runtime.encoder, context=CONTEXT, ahead=AHEAD)
    message = r"d1#\d+ shares 24 tokens in a row with the evaluation item needle-s0-01; .* Leave"
    with pytest.raises(UsageProblem, match=message):
        check_disjoint(windows, items)


def test_other_text_passes_although_both_have_the_template(runtime: Runtime) -> None:
    items = needle_items(Drawing(encoder=runtime.encoder, context=400, seed=0, count=2))
    windows = cut(corpus(prose(8000)), runtime.encoder, context=CONTEXT, ahead=AHEAD)
    check_disjoint(windows, items)
