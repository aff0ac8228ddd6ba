from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness.engine.decode import Prompt, force
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import BatchCache, Kept
from kvharness.training.gated import read_gated

if TYPE_CHECKING:
    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled

TOKENS = 24
PROMPT = Prompt(lead=(7, 11, 13), answer=(5, 3, 9))


@pytest.fixture
def context(runtime: Runtime) -> Prefilled:
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 1500, (TOKENS,), generator=rng).tolist()
    return prefill(runtime, ids)[0]


def answer(runtime: Runtime, context: Prefilled, gates: torch.Tensor | None) -> list[float]:
    logits = read_gated(runtime, context, PROMPT.tokens, gates)[len(PROMPT.lead) - 1 :]
    targets = torch.tensor(PROMPT.answer)[:, None]
    found: list[float] = logits.log_softmax(dim=-1).gather(1, targets)[:, 0].tolist()
    return found


def evicted(runtime: Runtime, context: Prefilled, mask: torch.Tensor) -> list[float]:
    cache = BatchCache(context, [Kept(mask=mask)], room=len(PROMPT.tokens))
    found: list[float] = (
        force(runtime.model, cache, [PROMPT], most_tokens=99).logprob[0][0].tolist()
    )
    return found


def test_open_and_shut_gates_are_eviction(runtime: Runtime, context: Prefilled) -> None:
    rng = torch.Generator().manual_seed(1)
    mask = torch.rand(2, 2, TOKENS, generator=rng) < 0.4
    mask[..., 0] = True
    with torch.no_grad():
        gated = answer(runtime, context, mask.float())
    assert gated == pytest.approx(evicted(runtime, context, mask), abs=1e-3)
    everything = torch.ones_like(mask)
    assert gated != pytest.approx(evicted(runtime, context, everything), abs=1e-2)


def test_no_gates_are_the_full_cache(runtime: Runtime, context: Prefilled) -> None:
    full = evicted(runtime, context, torch.ones(2, 2, TOKENS, dtype=torch.bool))
    with torch.no_grad():
        assert answer(runtime, context, None) == pytest.approx(full, abs=1e-4)
        assert answer(runtime, context, torch.ones(2, 2, TOKENS)) == pytest.approx(full, abs=1e-3)


def test_gradients_reach_the_gates_and_nothing_else(runtime: Runtime, context: Prefilled) -> None:
    gates = torch.full((2, 2, TOKENS), 0.5, requires_grad=True)
    for parameter in runtime.model.parameters():
        parameter.requires_grad_(False)
    logits = read_gated(runtime, context, PROMPT.tokens, gates)
    logits[0, 5].backward()
    assert gates.grad is not None
    numeric = torch.zeros(())
    step = torch.zeros_like(gates)
    step[1, 0, 3] = 1e-2
    with torch.no_grad():
        up, down = (
            read_gated(runtime, context, PROMPT.tokens, gates + sign * step)[0, 5]
            for sign in (1, -1)
        )
        numeric = (up - down) / 2e-2
    assert float(gates.grad[1, 0, 3]) == pytest.approx(float(numeric), rel=0.05, abs=1e-4)
    assert all(parameter.grad is None for parameter in runtime.model.parameters())
