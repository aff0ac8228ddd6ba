"""Tests made of policies and checks, and the route without code."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kvharness import Drawn, Observation, Observations, Policy, Reading, afterwards
from kvharness.testing import (
    CHECKS,
    VERSION,
    Mistake,
    check_scores_fit,
    checks_for,
    left_out,
    parametrize_with_checks,
)
from kvharness.testing.parametrize import LEFT_OUT, left_out_lines, note_left_out
from kvharness_policies.random import Random
from kvharness_policies.snapkv import SnapKV
from tests.testing.broken.interface import Zeros
from tests.testing.broken.selection import OneTooMany

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kvharness import View

QUICK = ("-p", "no:cacheprovider", "-k", "exact_budget or nested_budgets")
MINE = """
import pytest
from kvharness.testing import parametrize_with_checks
from tests.testing.broken.interface import Zeros
from tests.testing.broken.selection import OneTooMany

@parametrize_with_checks({policies}, expected_failures={expected})
def test_mine(policy, check):
    check(policy)
"""


def norms(view: View) -> Tensor:
    scores: Tensor = view.keys.float().norm(dim=-1)
    return scores


def made(decorator: Callable[[Any], Any]) -> tuple[list[str], list[str], dict[str, Any]]:
    """Ids, ids that are expected to fail, and the note on what was left out."""

    def test(policy: object, check: object) -> None: ...

    (mark,) = decorator(test).pytestmark
    parameters = mark.args[1]
    failing = [each.id for each in parameters if each.marks]
    return [each.id for each in parameters], failing, getattr(test, LEFT_OUT)


def test_there_is_a_test_for_each_policy_and_check_that_applies() -> None:
    ids, failing, note = made(parametrize_with_checks([SnapKV(), norms, Random()]))
    assert ids[0] == "SnapKV-scores_fit"
    assert len(ids) == len(set(ids)) == sum(len(checks_for(p)) for p in (SnapKV(), norms, Random()))
    assert not failing
    assert note["SnapKV"] == left_out(SnapKV())
    assert note["norms"]["group_order"] == "it needs nothing of query heads"
    assert note["Random"]["seed_does_not_matter"] == "it is declared stochastic"


def test_policies_may_be_named_and_repeated() -> None:
    ids, _, _ = made(parametrize_with_checks({"mine": SnapKV()}))
    assert ids[0] == "mine-scores_fit"
    ids, _, _ = made(parametrize_with_checks([SnapKV(), SnapKV(window=4)]))
    assert {each.partition("-")[0] for each in ids} == {"SnapKV", "SnapKV#2"}


def test_expected_failures_are_strict() -> None:
    expected = {"check_exact_budget": "known", "scores_fit": "also known"}
    decorator = parametrize_with_checks([OneTooMany()], expected_failures=expected)
    ids, failing, _ = made(decorator)
    assert failing == ["OneTooMany-scores_fit", "OneTooMany-exact_budget"]
    assert len(ids) == len(checks_for(OneTooMany()))


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"exact_budgets": ""}, "no check 'exact_budgets'. Did you mean 'exact_budget'"),
        ({"seed_matters": ""}, "'seed_matters' applies to none of Zeros; remove it"),
    ],
)
def test_expected_failures_name_checks_that_run(expected: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parametrize_with_checks([Zeros()], expected_failures=expected)


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a list of policies, such as \[SnapKV\(\)\]"):
        parametrize_with_checks(SnapKV())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a policy, such as"):
        checks_for(SnapKV)  # type: ignore[arg-type]


def run(pytester: pytest.Pytester, policies: str, expected: str) -> pytest.RunResult:
    pytester.makepyfile(MINE.format(policies=policies, expected=expected))
    return pytester.runpytest_inprocess(*QUICK)


def test_a_run_tells_what_was_left_out_and_what_failed(pytester: pytest.Pytester) -> None:
    result = run(pytester, "[Zeros(), OneTooMany()]", "None")
    result.assert_outcomes(passed=3, failed=1, deselected=34)
    result.stdout.fnmatch_lines(
        [
            f"kvharness: {len(CHECKS)} checks, version {VERSION}",
            "  Zeros without seed_matters: it is declared deterministic",
            "E *Mistake: allocate gave 2 entries, expected 1 x 1 layers x 1 heads = 1",
        ]
    )


def test_an_expected_failure_that_passes_is_a_failure(pytester: pytest.Pytester) -> None:
    result = run(pytester, "[OneTooMany()]", "dict(exact_budget='x', nested_budgets='y')")
    result.assert_outcomes(xfailed=1, failed=1, deselected=17)
    result.stdout.fnmatch_lines(["[[]XPASS(strict)] y"])


def test_the_route_without_code(pytester: pytest.Pytester) -> None:
    options = (*QUICK, "--pyargs", "kvharness.testing")
    result = pytester.runpytest_inprocess(*options, "--policy=snapkv", "-v")
    result.assert_outcomes(passed=2, deselected=18)
    result.stdout.fnmatch_lines(["*::test_policy[[]snapkv-exact_budget] PASSED*"])
    assert "store" not in str(result.stdout)
    assert not (pytester.path / ".kvharness").exists()


def test_the_route_without_code_names_unknown_policies(pytester: pytest.Pytester) -> None:
    options = (*QUICK, "--pyargs", "kvharness.testing")
    result = pytester.runpytest_inprocess(*options, "--policy=snapky")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: no policy named 'snapky'*Did you mean 'snapkv'*"])


def test_workers_name_unknown_policies_as_well(pytester: pytest.Pytester) -> None:
    options = (*QUICK, "--pyargs", "kvharness.testing", "--policy=snapky", "-n", "1")
    result = pytester.runpytest_subprocess(*options)
    assert result.ret != 0
    text = result.stdout.str() + result.stderr.str()
    assert "no policy named 'snapky' is installed. Did you mean 'snapkv'" in text
    assert "INTERNALERROR" not in text


def leaves(view: View) -> Tensor:
    raise SystemExit(view.tokens)


def skips(view: View) -> Tensor:
    pytest.skip(f"not today: {view.tokens}")


@pytest.mark.parametrize(("score", "name"), [(leaves, "SystemExit"), (skips, "Skipped")])
def test_leaving_is_a_mistake(score: Any, name: str) -> None:
    with pytest.raises(Mistake, match=f"score raised {name}: .* on 1 tokens"):
        check_scores_fit(score, count=3)


def test_what_is_declared_wrongly_is_refused() -> None:
    class Wrong(Zeros):
        capabilities = {"nested": True}  # type: ignore[assignment]  # noqa: RUF012

    with pytest.raises(TypeError, match="Wrong: capabilities is a dict, expected Capabilities"):
        parametrize_with_checks([Wrong()])


def test_without_a_policy_every_installed_one_is_checked(pytester: pytest.Pytester) -> None:
    options = ("--pyargs", "kvharness.testing", "--collect-only", "-q", "-p", "no:cacheprovider")
    lines = pytester.runpytest_inprocess(*options).outlines
    policies = {line.partition("[")[2].partition("-scores_fit")[0] for line in lines}
    assert {"snapkv", "random-tied", "streaming-llm", "full"} <= policies


@dataclass(frozen=True)
class Unsampled(Observation[float]):
    """What its author draws no samples of, and the kit cannot."""

    def observing(self, reading: Reading) -> Any:
        depth = float(reading.model.config.num_hidden_layers)
        return afterwards(lambda: dict.fromkeys(reading.layers, depth))


@dataclass(frozen=True)
class Sampled(Unsampled):
    def sample(self, drawn: Drawn) -> float:
        return float(drawn.similarity)


@dataclass(frozen=True)
class Seeing(Policy):
    observation: Unsampled = Sampled()

    @property
    def needs(self) -> Observations:
        return frozenset({self.observation})

    def score(self, view: View) -> Tensor:
        return norms(view) * view[self.observation]


def test_cases_are_drawn_of_a_strangers_observation_if_it_gives_samples() -> None:
    names = {check.name for check in checks_for(Seeing())}
    assert {"scores_fit", "exact_budget", "no_state", "cells_independent"} <= names
    for check in checks_for(Seeing()):
        check.function(Seeing(), count=3)


def test_without_samples_only_what_a_model_makes_is_checked() -> None:
    blind = Seeing(Unsampled())
    modelled = [
        "reads_are_in_the_key",
        "full_retention_is_identity",
        "masked_equals_evicted",
        "cells_independent",
    ]
    assert [check.name for check in checks_for(blind)] == modelled
    for check in checks_for(blind):
        check.function(blind, count=3)
    reasons = {reason for check, reason in left_out(blind).items() if check == "scores_fit"}
    told = "Unsampled() cannot be drawn (it looks at the model); give it a method sample(drawn)"
    assert reasons == {told}


def test_checks_that_are_left_out_for_one_reason_share_a_line() -> None:
    def test() -> None: ...

    note_left_out(test, {"mine": Seeing(Unsampled())})
    item: Any = SimpleNamespace(function=test)
    lines = left_out_lines([item])
    assert len(lines) == 1 + len({*left_out(Seeing(Unsampled())).values()}) < 6
    assert lines[1].startswith("  mine without scores_fit, dtype_and_device, finite_scores, ")
    assert lines[1].endswith(
        ": Unsampled() cannot be drawn (it looks at the model); give it a method sample(drawn)"
    )
