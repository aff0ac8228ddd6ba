from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM

from kvharness.model.context_reading import prefill
from kvharness.training import continuations, retained
from kvharness_policies.knorm import Knorm

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.model.loaded import Runtime

TOKENS = 40


def ids() -> list[int]:
    rng = torch.Generator().manual_seed(0)
    found: list[int] = torch.randint(2, 1500, (TOKENS,), generator=rng).tolist()
    return found


def naive(folder: Path, tokens: list[int], count: int) -> tuple[int, ...]:
    """Greedy text of the plain model by reading everything again for each token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    made: list[int] = []
    for _ in range(count):
        with torch.no_grad():
            logits = model(torch.tensor([[*tokens, *made]]), use_cache=False).logits
        made.append(int(logits[0, -1].argmax()))
    return tuple(made)


def test_the_full_cache_goes_on_as_the_model_does(runtime: Runtime, tiny_model: Path) -> None:
    context, _ = prefill(runtime, ids())
    everything = torch.ones(2, 2, TOKENS, dtype=torch.bool)
    (text,) = continuations(runtime, context, [everything], 7, tokens=9)
    with_eos = naive(tiny_model, [*ids(), 7], 8)
    assert text == (7, *with_eos)[: len(text)]
    assert len(text) == 9 or with_eos[len(text) - 1] in runtime.stop


def test_other_caches_may_go_elsewhere(runtime: Runtime) -> None:
    context, _ = prefill(runtime, ids())
    everything = torch.ones(2, 2, TOKENS, dtype=torch.bool)
    mask = retained(context, Knorm(), retention=Fraction("0.55"), name="knorm", seed=0)
    assert mask.sum(dim=-1).tolist() == [[22, 22], [22, 22]]
    assert mask[..., :4].all()
    assert mask[..., -16:].all()
    full, part = continuations(runtime, context, [everything, mask], 7, tokens=30)
    assert full[0] == part[0] == 7
    assert full != part
