"""All checks in the order they run, and which apply to a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.policy.observation.standard import (
    Boundaries,
    ColumnSums,
    HiddenSimilarity,
    HiddenStates,
)
from kvharness.testing.checks import (
    engine,
    interface,
    numerics,
    purity,
    repeated,
    selection,
    surroundings,
)
from kvharness.testing.examples import MODELLED, PURE
from kvharness.testing.mistake import Mistake
from kvharness.testing.one_thread import one_thread
from kvharness.testing.samples import unsampled
from kvharness.testing.subject import as_given, learns

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness.policy.interface import Policy, ScoreFunction

#: Of the set of checks: a policy that conforms to a version still does when checks are repaired,
#: and may fail the next version's new ones.
VERSION = 1
_PREFIX = "check_"


def _always(policy: Policy) -> str | None:
    del policy
    return None


@dataclass(frozen=True, slots=True, repr=False)
class Check:
    """A check as `parametrize_with_checks` hands it out; call it with a policy.

    Attributes:
        function: the plain function.
        count: examples it draws.
        applies: why it does not apply to a policy; None when it does.
        drawn: whether its cases are drawn, rather than what a tiny model makes.
    """

    function: Callable[..., None]
    count: int = PURE
    applies: Callable[[Policy], str | None] = _always
    drawn: bool = True

    def why_not(self, policy: Policy) -> str | None:
        """Why it is left out for a policy; None when it is not."""
        return self.applies(policy) or (unsampled(policy.needs) or None if self.drawn else None)

    @property
    def name(self) -> str:
        """``exact_budget`` for `check_exact_budget`."""
        return self.function.__name__.removeprefix(_PREFIX)

    def __call__(self, policy: Policy | ScoreFunction) -> None:
        __tracebackhide__ = True
        try:
            with one_thread():
                self.function(policy, count=self.count)
        except Mistake as mistake:
            # The traceback leads through Hypothesis and this package, never through the policy.
            raise mistake.with_traceback(None) from None

    def __repr__(self) -> str:
        return self.function.__name__


def _unless_stochastic(policy: Policy) -> str | None:
    return "it is declared stochastic" if not policy.capabilities.deterministic else None


def _if_stochastic(policy: Policy) -> str | None:
    return "it is declared deterministic" if policy.capabilities.deterministic else None


def _if_nested(policy: Policy) -> str | None:
    return None if policy.capabilities.nested else "its budgets are declared not to nest"


def _if_it_sees_query_heads(policy: Policy) -> str | None:
    blind = (Boundaries, HiddenSimilarity, HiddenStates)
    seen = any(not isinstance(each, blind) for each in policy.needs)
    return None if seen else "it needs nothing of query heads"


def _if_it_sees_sums(policy: Policy) -> str | None:
    return None if ColumnSums() in policy.needs else "it needs no column sums"


def _unless_learned(policy: Policy) -> str | None:
    made = learns(policy)
    return "it gets ready for a model, and the session has a layer of its own" if made else None


#: Every check; `left_out` says which of them do not apply to a policy.
CHECKS = (
    Check(interface.check_scores_fit),
    Check(interface.check_dtype_and_device),
    Check(interface.check_finite_scores),
    Check(interface.check_protect_fits),
    Check(selection.check_exact_budget),
    Check(selection.check_protected_kept),
    Check(selection.check_kept_positions),
    Check(selection.check_nested_budgets, applies=_if_nested),
    Check(purity.check_deterministic),
    Check(purity.check_seed_matters, applies=_if_stochastic),
    Check(purity.check_seed_does_not_matter, applies=_unless_stochastic),
    Check(purity.check_global_state),
    Check(surroundings.check_reads_are_in_the_key, drawn=False),
    Check(purity.check_inputs_unchanged),
    Check(purity.check_no_state),
    Check(purity.check_sees_only_its_needs),
    Check(numerics.check_group_order, applies=_if_it_sees_query_heads),
    Check(numerics.check_query_chunks, applies=_if_it_sees_sums),
    Check(repeated.check_survives_repeated_compression, applies=_unless_learned),
    Check(engine.check_full_retention_is_identity, MODELLED, drawn=False),
    Check(engine.check_masked_equals_evicted, MODELLED, drawn=False),
    Check(engine.check_cells_independent, MODELLED, drawn=False),
)


def checks_for(given: Policy | ScoreFunction) -> list[Check]:
    """The checks that apply to a policy."""
    policy = as_given(given)
    return [check for check in CHECKS if check.why_not(policy) is None]


def left_out(given: Policy | ScoreFunction) -> dict[str, str]:
    """The checks that do not apply, by name, and why."""
    policy = as_given(given)
    reasons = {check.name: check.why_not(policy) for check in CHECKS}
    return {name: reason for name, reason in reasons.items() if reason is not None}
