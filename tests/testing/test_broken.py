"""Each broken policy fails the check that is about its mistake, with its name, and no other."""

from __future__ import annotations

import re

import pytest

from kvharness import Policy, Protection
from kvharness.engine.select import keep_mask
from kvharness.errors import PolicyProblem
from kvharness.testing import CHECKS, Mistake, checks_for
from kvharness.testing.case import Case
from kvharness.testing.tensors import Shape
from tests.testing.broken import engine, interface, purity, selection, surroundings

#: Of the checks that a broken policy passes.
FEW = 8
BROKEN: list[tuple[Policy, str, str]] = [
    (
        interface.OneScorePerQueryHead(),
        "scores_fit",
        r"score returned shape \(2, 1\), expected \(1, 1\)",
    ),
    (
        interface.NeedsEightTokens(),
        "scores_fit",
        r"score raised RuntimeError: .* on 1 tokens; contexts may be this short",
    ),
    (
        interface.ScoresInTheModelsDtype(),
        "dtype_and_device",
        r"score returned torch.(b?float16) for (b?float16) keys, expected torch.float32",
    ),
    (
        interface.ScoresElsewhere(),
        "dtype_and_device",
        "score returned a tensor on meta, expected cpu, where the keys are",
    ),
    (
        interface.SquaresInTheModelsDtype(),
        "finite_scores",
        r"the score of token \d+ in layer 0 is -inf for float16 keys; compute in float32",
    ),
    (
        interface.DividesByTheNorm(),
        "finite_scores",
        r"the score of token 0 in layer 0 is nan for float32 keys; .* do not divide by 0",
    ),
    (interface.ProtectsWithATuple(), "protect_fits", "protect returned tuple, expected Protection"),
    (
        interface.ProtectsHalfATokens(),
        "protect_fits",
        r"protect asks for 0 sinks and \d\.\d+ recents, expected whole numbers",
    ),
    (
        interface.ProtectsEverything(),
        "protect_fits",
        r"protect\(100000, 10000\) asks for 100000 sinks and 0 recents, more than the budget of",
    ),
    (
        selection.OneTooMany(),
        "exact_budget",
        r"allocate gave (\d+) entries, expected \d+ x 1 layers x 1 heads = \d+",
    ),
    (
        selection.RoundedDown(),
        "exact_budget",
        r"allocate gave 0 entries, expected 1 x 1 layers x 1 heads = 1",
    ),
    (
        selection.HeadWiseUndeclared(),
        "exact_budget",
        r"allocate gave head 0 of layer 0 \d+ entries, expected \d+ in every head; declare",
    ),
    (
        selection.StarvesAHead(),
        "exact_budget",
        r"allocate gave head 1 of layer 0 0 entries, expected 1 \(sinks and recents\) to \d",
    ),
    (
        selection.KeepsOneFewer(),
        "exact_budget",
        "select kept 0 entries in head 0 of layer 0, expected 1",
    ),
    (
        selection.KeepsOneMoreOfLongContexts(),
        "exact_budget",
        r"select kept (\d+) entries in head 0 of layer 0, expected \d+",
    ),
    (
        selection.ForgetsProtection(),
        "protected_kept",
        r"(sink|recent token) \d+ of layer 0, head 0 was evicted; select must keep",
    ),
    (
        selection.DropsTheFirstSink(),
        "protected_kept",
        "sink 0 of layer 0, head 0 was evicted",
    ),
    (
        selection.SelectsPositions(),
        "kept_positions",
        r"select returned torch.int64 .*: True at kept positions, not the positions themselves",
    ),
    (
        selection.SelectsALayerTooFew(),
        "kept_positions",
        r"select returned torch.bool \(0, 1, 1\), expected a torch.bool \(1, 1, 1\)",
    ),
    (
        selection.StridesOverTokens(),
        "nested_budgets",
        r"token \d+ of layer 0, head 0 is kept at budget \d+ and evicted at \d+; declare",
    ),
    (
        purity.DrawsGlobally(),
        "deterministic",
        "layer 0 keeps other tokens when the same trace is read again .* draw from view.rng",
    ),
    (
        purity.FixesItsSeed(),
        "seed_matters",
        "seeds 0 and 1000 keep the same tokens, although the policy is declared stochastic",
    ),
    (
        purity.BreaksTiesAtRandom(),
        "seed_does_not_matter",
        r"layer 0 keeps other tokens for seed \d+ than for seed 0; declare capabilities",
    ),
    (
        purity.SeedsTorch(),
        "global_state",
        "the policy seeds the global generator of torch, for every policy .* draw from view.rng",
    ),
    (
        purity.ComputesInFloat64(),
        "global_state",
        r"the policy changed the default dtype from torch.float32 to torch.float64, for every",
    ),
    (
        purity.TakesAllCores(),
        "global_state",
        r"the policy changed the number of threads from \d+ to \d+, for every policy",
    ),
    (
        purity.AllowsGradients(),
        "global_state",
        "the policy changed the gradient mode from False to True, for every policy",
    ),
    (
        purity.WantsDeterminism(),
        "global_state",
        "ready changed the deterministic mode from 0 to 2, for every policy",
    ),
    (
        purity.NormalizesInPlace(),
        "inputs_unchanged",
        r"the policy wrote into view.keys of layer 0; work on a copy \(tensor.clone\(\)\)",
    ),
    (
        purity.RemembersKeys(),
        "no_state",
        "layer 0 keeps other tokens of a prompt after another prompt was compressed",
    ),
    (
        purity.RemembersScores(),
        "no_state",
        "layer 0 keeps other tokens of a prompt after another prompt was compressed",
    ),
    (
        purity.PeeksAtTheFuture(),
        "sees_only_its_needs",
        "the choice changes when the harness records more than keys and values for another policy",
    ),
    (
        purity.ReadsOneHeadOfAGroup(),
        "group_order",
        r"the score of token 0 in layer 0, KV head 0 is .* treat the heads of a group alike",
    ),
    (
        purity.MagnifiesRounding(),
        "query_chunks",
        r"when attention is added up \d+ queries at a time; .* do not magnify rounding",
    ),
    (
        surroundings.ReadsAFile(),
        "reads_are_in_the_key",
        r"the policy reads the file '.*pyproject.toml', which no key covers, so records would",
    ),
    (
        surroundings.ReadsItOnce(),
        "reads_are_in_the_key",
        r"the policy reads the file '.*pyproject.toml', which no key covers, so records would",
    ),
    (
        surroundings.PreparesFromAFile(),
        "reads_are_in_the_key",
        r"ready reads the file '.*pyproject.toml', .*; make it a parameter, put it into the pack",
    ),
    (
        surroundings.AsksTheEnvironment(),
        "reads_are_in_the_key",
        r"the policy reads the environment variable A_POLICY_OF_THE_TESTS, which no key covers",
    ),
    (
        surroundings.PreparesFromTheEnvironment(),
        "reads_are_in_the_key",
        r"ready reads the environment variable A_POLICY_OF_THE_TESTS, which no key covers",
    ),
    (
        surroundings.ObservesAFile(),
        "reads_are_in_the_key",
        r"what it observes reads the file '.*pyproject.toml', which no key covers",
    ),
    (
        surroundings.ObservesAFileUnsampled(),
        "reads_are_in_the_key",
        r"what it observes reads the file '.*pyproject.toml', which no key covers",
    ),
    (
        engine.IndexesByPosition(),
        "survives_repeated_compression",
        "compression 2 fails: IndexError: .* so index by slot",
    ),
    (
        engine.TunesTheModel(),
        "full_retention_is_identity",
        r"with nothing evicted, answers are [\d.]+ nats from those without a policy",
    ),
    (
        engine.SpoilsWhatIsRead(),
        "full_retention_is_identity",
        r"nats from those without a policy; leave the model as .* observing\(reading\) get it",
    ),
    (
        engine.CompactButUneven(),
        "masked_equals_evicted",
        r"heads keep \[\d+, \d+\] entries in layer 0 with compact positions, which need",
    ),
    (
        engine.ReusesItsMask(),
        "cells_independent",
        r"the mask of budget \d+ changed when the policy selected for another budget",
    ),
]
IDS = [type(policy).__name__ for policy, _, _ in BROKEN]
#: Checks in which a tiny model reads, and so observes.
MODELLED = ("full_retention_is_identity", "masked_equals_evicted", "cells_independent")
#: Policies whose select, protect or allocate breaks the interface itself: the harness
#: refuses them in any run. What others do wrong shows only when two calls are compared.
REFUSED = (
    interface.ProtectsWithATuple(),
    interface.ProtectsHalfATokens(),
    selection.OneTooMany(),
    selection.RoundedDown(),
    selection.StarvesAHead(),
    selection.KeepsOneFewer(),
    selection.ForgetsProtection(),
    selection.DropsTheFirstSink(),
    selection.SelectsPositions(),
    selection.SelectsALayerTooFew(),
)


@pytest.mark.parametrize(("policy", "name", "message"), BROKEN, ids=IDS)
def test_a_broken_policy_fails_its_own_check_and_no_other(
    policy: Policy, name: str, message: str
) -> None:
    failed = {}
    for check in checks_for(policy):
        try:
            check.function(policy, count=check.count if check.name == name else FEW)
        except Mistake as mistake:
            failed[check.name] = mistake
    assert list(failed) == [name], {check: str(mistake) for check, mistake in failed.items()}
    assert re.search(message, str(failed[name])), str(failed[name])
    if str(failed[name]).startswith(("ready", "what it observes")):
        return
    # Hypothesis calls it a falsifying example, or a failing test case.
    assert ": holds(" in failed[name].told() or "Draw 1" in failed[name].told()


@pytest.mark.parametrize("name", MODELLED)
def test_what_cannot_be_observed_is_a_mistake(name: str) -> None:
    (check,) = (each for each in CHECKS if each.name == name)
    with pytest.raises(
        Mistake, match=r"Blind\(\) cannot be observed: RuntimeError: it is too dark"
    ):
        check(engine.SeesNothing())


def test_every_check_has_a_broken_policy() -> None:
    assert {name for _, name, _ in BROKEN} == {check.name for check in CHECKS}


@pytest.mark.parametrize("policy", REFUSED, ids=lambda policy: type(policy).__name__)
def test_the_harness_refuses_a_wrong_stage_at_run_time(policy: Policy) -> None:
    shape = Shape(layers=2, heads=4, kv_heads=3, tokens=15, size=4)
    trace = Case(shape=shape, budget=7).trace(policy.needs)
    with pytest.raises((PolicyProblem, TypeError)):
        keep_mask(policy, trace, 7, Protection(sinks=2, recents=3), name="broken")


def test_every_check_refuses_a_policy_that_is_another_one_once_it_is_ready() -> None:
    for check in CHECKS:
        with pytest.raises(
            Mistake,
            match=r"ready returned a policy with needs frozenset\({ColumnSums\(\)}\)",
        ):
            check(interface.ReadyAsAnother())
