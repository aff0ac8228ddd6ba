"""The public names of the checks."""

from __future__ import annotations

import kvharness.testing
from kvharness.testing import CHECKS
from kvharness.testing.examples import MODELLED, PURE


def test_every_check_is_public_and_says_what_it_is_about() -> None:
    functions = {check.function.__name__: check for check in CHECKS}
    assert set(functions) == {n for n in dir(kvharness.testing) if n.startswith("check_")}
    for check in CHECKS:
        assert "Raises:\n        Mistake:" in str(check.function.__doc__)
        assert check.count in {PURE, MODELLED}
    assert (PURE, MODELLED) == (200, 20)
