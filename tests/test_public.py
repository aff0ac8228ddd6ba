"""The names that other packages may use: each stands once, in a stub, and loads on first use."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

PACKAGES = ("kvharness", "kvharness.analysis", "kvharness.testing", "kvharness.training")


def names_of(package: str) -> list[str]:
    names: list[str] = import_module(package).__all__
    return names


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package in PACKAGES for name in names_of(package)]
)
def test_a_public_name_can_be_imported(package: str, name: str) -> None:
    # A statement, as a stranger writes it.
    found: dict[str, object] = {}
    exec(f"from {package} import {name}", found)  # noqa: S102 - our own names
    assert found[name] is not None


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_name_is_there(package: str) -> None:
    module = import_module(package)
    assert set(dir(module)) == set(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__) > 5
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_costs_no_torch(package: str) -> None:
    heavy = "{'torch', 'hypothesis', 'matplotlib', 'numpy', 'scipy'}"
    code = f"import sys, {package}; print({heavy} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
