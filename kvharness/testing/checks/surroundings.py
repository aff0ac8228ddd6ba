"""What a policy reads beside what it is given, which has to be in the key of its records."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from hypothesis import given

from kvharness.testing.checks.engine import Scene, Stage
from kvharness.testing.examples import PURE, examples
from kvharness.testing.mistake import Mistake
from kvharness.testing.model import MODEL_SHAPE, TinyModel
from kvharness.testing.reading import read
from kvharness.testing.reads import OBSERVING, READY, SCORING, uncovered
from kvharness.testing.samples import unsampled
from kvharness.testing.subject import as_given, cases_for, ready

if TYPE_CHECKING:
    from kvharness.policy.interface import Policy, ScoreFunction
    from kvharness.testing.case import Case

#: Who reads, by what the policy was doing.
_WHO = {READY: READY, OBSERVING: "what it observes", SCORING: "the policy"}


def check_reads_are_in_the_key(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """Whatever a policy reads to get ready, observe or score is covered by the key of its records.

    That is files of its own distribution, files that its parameters name, and what is installed.
    A policy whose `checkpoint` returns a digest may read what it likes.

    Raises:
        Mistake: names the file or the variable of the environment.
    """
    # The policy that scores may be another one, which says nothing of weights.
    offered, subject = as_given(policy), ready(policy)
    if _has_checkpoint(offered):
        return
    _expect_covered(offered, READY)
    _observe(policy)
    _expect_covered(offered, OBSERVING)
    if not unsampled(subject.needs):
        _score(policy, subject, count)


def _observe(policy: Policy | ScoreFunction) -> None:
    scene = Scene(heads=4, kv_heads=2, tokens=20, budget=10, sinks=2, recents=2, seed=0)
    # What cannot be observed is the mistake of the checks that look at the answers.
    with suppress(Mistake):
        Stage(policy).on(scene)


def _score(policy: Policy | ScoreFunction, subject: Policy, count: int) -> None:
    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        read(subject, case)
        _expect_covered(subject, SCORING)

    holds()


def _has_checkpoint(policy: Policy) -> bool:
    try:
        return bool(policy.checkpoint(TinyModel.of(MODEL_SHAPE).runtime.source, 0))
    except Exception:  # noqa: BLE001 - without weights for a tiny model there is no digest
        return False


def _expect_covered(policy: Policy, doing: str) -> None:
    for done, thing in uncovered(policy):
        if done == doing:
            raise Mistake(
                f"{_WHO[doing]} reads {thing}, which no key covers, so records would outlive a "
                f"change of it; make it a parameter, put it into the package, or let checkpoint "
                f"return its digest"
            )
