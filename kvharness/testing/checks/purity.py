"""What a policy's choice may depend on: its trace and, where declared, its seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.isolation.attribution import left_changed
from kvharness.policy.observation.base import Observation
from kvharness.policy.observation.probe import Ends
from kvharness.policy.observation.standard import (
    Boundaries,
    ColumnSums,
    Future,
    HiddenSimilarity,
    HiddenStates,
    Queries,
)
from kvharness.testing.case import WORDS, Case, trace_of
from kvharness.testing.examples import PURE, examples
from kvharness.testing.mistake import Mistake, expect
from kvharness.testing.reading import copied, read, read_as_is
from kvharness.testing.strategies import other_prompts
from kvharness.testing.subject import cases_for, changed_by_ready, ready
from kvharness.testing.tensors import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.policy.interface import Policy, ScoreFunction
    from kvharness.policy.observation.base import Observations
    from kvharness.policy.trace import Trace
    from kvharness.testing.reading import Reading

_EVERYTHING = frozenset[Observation[Any]](
    {
        Queries(1 << 20),
        ColumnSums(),
        Future(),
        HiddenSimilarity(),
        Boundaries(),
        HiddenStates(),
        Ends(prefix=3, suffix=2, offset=1),
    }
)
#: So many tokens of which half are kept: two random choices are never the same by chance.
_LONG = Shape(layers=2, heads=4, kv_heads=2, tokens=48, size=16)


def check_deterministic(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """The same trace and seed give the same mask, whatever the global generators hold.

    Raises:
        Mistake: names the first layer whose mask differs.
    """
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        first, again = (read(subject, case, luck=luck) for luck in (1, 2))
        where = _difference(first, again)
        expect(
            where is None,
            f"{where} keeps other tokens when the same trace is read again with the same seed; "
            f"draw from view.rng, never from a global generator",
        )

    holds()


def _difference(one: Reading, two: Reading) -> str | None:
    """The first layer in which two masks differ; None when they do not, or there is none."""
    if one.mask is None or two.mask is None:
        return None
    if one.mask.shape != two.mask.shape:
        return "the mask's shape"
    layers = (one.mask != two.mask).flatten(1).any(dim=1).nonzero()
    return f"layer {int(layers[0])}" if len(layers) else None


def check_seed_matters(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """A policy declared stochastic keeps other tokens for another seed.

    Raises:
        Mistake: two seeds keep the same.
    """
    subject = ready(policy)

    @examples(count)
    @given(seed=st.integers(0, 999), other=st.integers(1000, 1999))
    def holds(seed: int, other: int) -> None:
        one, two = (_seeded(subject, number) for number in (seed, other))
        if one.mask is not None and two.mask is not None:
            expect(
                _difference(one, two),
                f"seeds {seed} and {other} keep the same tokens, although the policy is declared "
                f"stochastic; draw from view.rng or drop Capabilities(deterministic=False)",
            )

    holds()


def _seeded(policy: Policy, seed: int) -> Reading:
    case = Case(shape=_LONG, budget=_LONG.tokens // 2)
    trace = case.trace(policy.needs, words=(str(seed), "item", "policy"))
    return read(policy, case, trace=trace)


def check_seed_does_not_matter(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """A policy declared deterministic keeps the same tokens for every seed.

    Raises:
        Mistake: two seeds keep different tokens.
    """
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy), seed=st.integers(1, 999))
    def holds(case: Case, seed: int) -> None:
        other = case.trace(subject.needs, words=(str(seed), "item", "policy"))
        where = _difference(read(subject, case), read(subject, case, trace=other))
        expect(
            where is None,
            f"{where} keeps other tokens for seed {seed} than for seed 0; declare capabilities = "
            f"Capabilities(deterministic=False)",
        )

    holds()


def check_global_state(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """What all policies of a process share is left as it was: torch's settings, and seeds.

    Raises:
        Mistake: names the setting that was changed, or the generator that was seeded.
    """
    changed = changed_by_ready(policy)
    expect(not changed, f"ready {left_changed(changed)}")
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        first, again = (read(subject, case, luck=luck) for luck in (1, 2))
        expect(not first.changed, f"the policy {left_changed(first.changed)}")
        for name, state in first.generators.items():
            # They began apart, and only a seed can bring them together.
            expect(
                state != again.generators[name],
                f"the policy seeds the global generator of {name}, for every policy of the "
                f"process; draw from view.rng",
            )

    holds()


def check_inputs_unchanged(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """The tensors of a view are as they were, bit for bit: other policies read them too.

    Raises:
        Mistake: names the tensor and the layer that were written to.
    """
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        trace = case.trace(subject.needs)
        before = case.trace(subject.needs)
        read(subject, case, trace=trace)
        for (name, now), (_, was) in zip(_tensors(trace), _tensors(before), strict=True):
            same = torch.equal(now.nan_to_num(), was.nan_to_num())
            expect(same, f"the policy wrote into {name}; work on a copy (tensor.clone())")

    holds()


def _tensors(trace: Trace) -> list[tuple[str, Tensor]]:
    named = [("view.positions", trace.positions)]
    for index, layer in enumerate(trace.layers):
        found = ((name if name[0] == "[" else f".{name}", each) for name, each in layer.tensors())
        named += [(f"view{name} of layer {index}", tensor) for name, tensor in found]
    return named


def check_no_state(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """Prompts A, B, A with one policy object: each is kept as a fresh object keeps it.

    Raises:
        Mistake: names the first layer in which something of another prompt was left.
    """
    subject = ready(policy)

    @examples(count)
    @given(data=st.data(), case=cases_for(policy))
    def holds(data: st.DataObject, case: Case) -> None:
        other = data.draw(other_prompts(case), label="prompt between")
        one = copied(subject)
        first, between, again = (
            read_as_is(one, each.trace(subject.needs), each.budget, each.protection)
            for each in (case, other, case)
        )
        where = _difference(first, again) or _difference(between, read(subject, other))
        expect(
            where is None,
            f"{where} keeps other tokens of a prompt after another prompt was compressed; keep no "
            f"state on the policy between calls",
        )
        if first.mask is not None and again.problem is not None:
            raise Mistake(f"after another prompt the policy fails: {again.reason}; keep no state")

    holds()


def _listed(needs: Observations) -> str:
    return ", ".join(sorted(map(str, needs))) or "keys and values"


def check_sees_only_its_needs(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """Scores and masks do not change when the harness records more, for another policy.

    Raises:
        Mistake: the policy looked at something that it does not declare in `needs`.
    """
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        tensors, needs = case.tensors(), subject.needs
        everything = trace_of(tensors, _EVERYTHING | needs)
        narrowed = everything.for_policy(needs, WORDS)
        alone, beside = read(subject, case), read(subject, case, trace=narrowed)
        apart = (
            alone.scores is not None
            and beside.scores is not None
            and not torch.equal(alone.scores, beside.scores)
        )
        expect(
            not apart and _difference(alone, beside) is None,
            f"the choice changes when the harness records more than {_listed(needs)} for another "
            f"policy; read the views that you are given, and declare what you read",
        )

    holds()
