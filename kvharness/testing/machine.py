"""The session as a Hypothesis state machine, which looks for the shortest way to break it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kvharness.testing import strategies
from kvharness.testing.examples import PURE, examples
from kvharness.testing.session import Session
from kvharness.testing.subject import ready

if TYPE_CHECKING:
    from kvharness.policy.interface import Policy, ScoreFunction
    from kvharness.testing.strategies import Append, Compress


class SessionMachine(RuleBasedStateMachine):
    """Append, compress, read and reset in any order, against a list of positions.

    Raises:
        Mistake: the cache and the list disagree, or a protected token is lost.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.session = Session(policy)

    @rule(step=strategies.appends())
    def append(self, step: Append) -> None:
        self.session.append(step.tokens)

    @rule(step=strategies.compressions())
    def compress(self, step: Compress) -> None:
        self.session.compress(step.retention)

    @rule()
    def reset(self) -> None:
        self.session.reset()

    @invariant()
    def read(self) -> None:
        self.session.read()


def run_session_machine(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """Run `SessionMachine` on a policy with ``count`` examples."""
    subject = ready(policy)

    class Machine(SessionMachine):
        def __init__(self) -> None:
            super().__init__(subject)

    run_state_machine_as_test(Machine, settings=examples(count))
