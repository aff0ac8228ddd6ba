"""What a check says of a policy that fails it."""

from __future__ import annotations


class Mistake(AssertionError):  # noqa: N818 - reads as what it is in messages
    """A policy broke a promise; the message names the mistake first.

    Hypothesis adds the smallest example it found as a note; `told` has both.
    """

    def told(self) -> str:
        """The message with the shrunk example."""
        return "\n".join([str(self), *getattr(self, "__notes__", ())])


def expect(condition: object, message: str) -> None:
    """Raise a `Mistake` unless the condition holds."""
    __tracebackhide__ = True
    if not condition:
        raise Mistake(message)
