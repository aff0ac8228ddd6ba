"""The number that stands for the engine's behaviour in the key of every record."""

from __future__ import annotations

#: The behaviour of everything in kvharness that turns a model, an item and what a policy returns
#: into the numbers of a record: reading the context and what is observed of it, the helpers that
#: policies call (budgets, attention of windows and probes), selection, eviction, decoding,
#: generation, scoring, and metrics on text; the adapter that runs presses as well.
#:
#: Raise it by one when such a change may give some record another number or another kept set than
#: before, beyond rounding: records with the old number are then never reused. Leave it when code is
#: moved, renamed, sped up or commented, when a record says something more, and when items or
#: policies change, which keys cover by digests of their own. Never go back to a number that was
#: used before.
#:
#: The tests in ``tests/golden`` fail when behaviour changes under an old number.
ENGINE_VERSION = 1
