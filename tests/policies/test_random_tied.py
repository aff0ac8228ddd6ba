from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvharness import Protection
from kvharness.engine.select import score_tokens
from kvharness_policies.ada import Ada
from kvharness_policies.random_tied import RandomTied
from tests.policies.test_uniform import scores_of

if TYPE_CHECKING:
    from tests.policies.conftest import Keep, MakeTrace, NaiveKept


def test_tied_is_one_row_for_all_heads_of_a_layer(make_trace: MakeTrace) -> None:
    scores = scores_of(RandomTied(), make_trace, "0")
    assert torch.equal(scores, scores[:, :1].expand_as(scores))
    assert len(scores[0, 0].unique()) == 10


def test_tied_keeps_the_first_layers_tokens_in_all_layers(
    make_trace: MakeTrace, keep: Keep, naive_kept: NaiveKept
) -> None:
    trace = make_trace(layers=3)
    first = score_tokens(RandomTied(), trace, name="tested")[0, 0].tolist()
    kept = keep(RandomTied(), trace, 6, Protection(sinks=1, recents=2))
    assert kept == [[naive_kept(first, 6, sinks=1, recents=2)] * 2] * 3
    kept = keep(Ada(RandomTied(), alpha=0), trace, 6)
    assert kept == [[naive_kept(first, 6)] * 2] * 3
