"""What a policy reads beside what it is given, which has to be in the key of its records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given

from kvharness.testing.examples import PURE, examples
from kvharness.testing.mistake import Mistake
from kvharness.testing.model import MODEL_SHAPE, TinyModel
from kvharness.testing.reading import read
from kvharness.testing.reads import uncovered
from kvharness.testing.subject import as_given, cases_for, ready

if TYPE_CHECKING:
    from kvharness.policy.interface import Policy, ScoreFunction
    from kvharness.testing.case import Case

_READY = "ready"


def check_reads_are_in_the_key(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """Whatever a policy reads while it gets ready or scores is covered by the key of its records.

    That is files of its own distribution, files that its parameters name, and what is installed.
    A policy whose `checkpoint` returns a digest may read what it likes.

    Raises:
        Mistake: names the file or the variable of the environment.
    """
    # The policy that scores may be another one, which says nothing of weights.
    offered, subject = as_given(policy), ready(policy)
    if _has_checkpoint(offered):
        return
    _expect_covered(offered, getting_ready=True)

    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        read(subject, case)
        _expect_covered(subject, getting_ready=False)

    holds()


def _has_checkpoint(policy: Policy) -> bool:
    try:
        return bool(policy.checkpoint(TinyModel.of(MODEL_SHAPE).runtime.source, 0))
    except Exception:  # noqa: BLE001 - without weights for a tiny model there is no digest
        return False


def _expect_covered(policy: Policy, *, getting_ready: bool) -> None:
    for doing, thing in uncovered(policy):
        if (doing == _READY) == getting_ready:
            who = _READY if getting_ready else "the policy"
            raise Mistake(
                f"{who} reads {thing}, which no key covers, so records would outlive a change of "
                f"it; make it a parameter, put it into the package, or let checkpoint return its "
                f"digest"
            )
