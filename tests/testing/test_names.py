"""The public names, and that they cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kvharness.testing
from kvharness.testing import CHECKS
from kvharness.testing.examples import MODELLED, PURE

CODE = "import sys, kvharness.testing; print({'torch', 'hypothesis'} & set(sys.modules))"


def test_every_public_name_is_there() -> None:
    for name in dir(kvharness.testing):
        assert getattr(kvharness.testing, name) is not None
    with pytest.raises(AttributeError, match=r"'kvharness.testing' has no attribute 'check'"):
        _ = kvharness.testing.check


def test_every_check_is_public_and_says_what_it_is_about() -> None:
    functions = {check.function.__name__: check for check in CHECKS}
    assert set(functions) == {n for n in kvharness.testing.__all__ if n.startswith("check_")}
    for check in CHECKS:
        assert "Raises:\n        Mistake:" in str(check.function.__doc__)
        assert check.count in {PURE, MODELLED}
    assert (PURE, MODELLED) == (200, 20)


def test_importing_the_package_costs_no_torch() -> None:
    assert subprocess.check_output([sys.executable, "-c", CODE], text=True).strip() == "set()"
