from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Protection
from kvharness.engine.select import score_tokens
from kvharness_policies.caote import CAOTE
from kvharness_policies.criticalkv import CriticalKV
from kvharness_policies.knorm import Knorm
from tests.policies.test_criticalkv import known

if TYPE_CHECKING:
    from tests.policies.conftest import Keep, MakeTrace

NOTHING = Protection(sinks=0, recents=0)


def test_scores_below_zero_are_no_attention(make_trace: MakeTrace, keep: Keep) -> None:
    trace = make_trace()
    with pytest.raises(
        ValueError, match="caote takes scores for attention, and these go down to -"
    ):
        score_tokens(CAOTE(Knorm()), trace, name="tested")
    with pytest.raises(ValueError, match="criticalkv takes scores for attention"):
        keep(known(CriticalKV(Knorm()), trace, torch.randn(5, 16)), trace, 5)
