from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvharness_policies.random_tied import RandomTied
from tests.policies.test_uniform import scores_of

if TYPE_CHECKING:
    from tests.policies.conftest import MakeTrace


def test_tied_is_one_row_for_all_layers_and_heads(make_trace: MakeTrace) -> None:
    scores = scores_of(RandomTied(), make_trace, "0")
    assert torch.equal(scores, scores[:1, :1].expand_as(scores))
    assert len(scores[0, 0].unique()) == 10
