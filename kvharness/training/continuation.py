"""What a model goes on to write from compressed caches of one context."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvharness.contract import Contract, QuestionMode, budget_of
from kvharness.engine.answer import Request, answer
from kvharness.engine.select import keep_mask
from kvharness.items.item import Question
from kvharness.model.evicted_cache import Kept
from kvharness.policy.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from torch import Tensor

    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from kvharness.policy.interface import Policy


def retained(
    context: Prefilled, policy: Policy, *, retention: Fraction, name: str, seed: int
) -> Tensor:
    """Keep mask of a policy that is ready under the default contract, bool ``[layers, K, n]``.

    Raises:
        PolicyProblem: the policy broke the interface.
    """
    budget = budget_of(retention, context.tokens)
    layers = tuple(context.layers.values())
    trace = Trace(
        layers=layers,
        positions=torch.arange(context.tokens, device=layers[0].keys.device),
    ).for_policy(policy.needs, (str(seed), name))
    with torch.no_grad():
        return keep_mask(policy, trace, budget, Contract().protection.fit(budget), name=name)


def continuations(
    runtime: Runtime, context: Prefilled, masks: Sequence[Tensor], first: int, *, tokens: int
) -> list[tuple[int, ...]]:
    """Greedy text from each of several caches, ``first`` included; ends where the model ends it.

    Args:
        runtime: the model.
        context: from `prefill`.
        masks: what each cache keeps, bool ``[layers, K, n]``.
        first: the token after the context; the same for all.
        tokens: of the longest continuation.

    Raises:
        ModelProblem: one of the caches does not fit into memory.
    """
    question = Question(
        text="",
        question=(),
        tail=(first,),
        answer=(first,),
        slots=((0, 1),),
        reference="",
        references=("",),
        max_new_tokens=tokens - 1,
    )
    request = Request(context=context, questions=(question,), layout=QuestionMode.SEEN, generate=1)
    replies = answer(runtime, request, [Kept(mask=mask) for mask in masks])
    return [(first, *(reply.generated[0] or ())) for reply in replies]
