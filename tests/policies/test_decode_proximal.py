from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvharness.engine.select import score_tokens
from kvharness_policies.decode_proximal import DecodeProximal
from kvharness_policies.prefill_attention import PrefillAttention

if TYPE_CHECKING:
    from tests.policies.conftest import MakeTrace


def test_all_queries_weighing_alike_are_prefill_attention(make_trace: MakeTrace) -> None:
    trace = make_trace(tokens=14)
    torch.testing.assert_close(
        score_tokens(DecodeProximal(window=14, tau=1e9), trace, name="tested"),
        score_tokens(PrefillAttention(), trace, name="tested"),
    )
