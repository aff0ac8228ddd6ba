from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import kvharness
import kvharness.testing
from kvharness._lazy import lazy_names

if TYPE_CHECKING:
    from types import ModuleType

PACKAGES = (kvharness, kvharness.testing)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_there_and_no_other(package: ModuleType) -> None:
    assert dir(package) == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    message = rf"module '{package.__name__}' has no attribute 'nothing'"
    with pytest.raises(AttributeError, match=message):
        _ = package.nothing


def test_a_submodule_is_its_own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    load, names = lazy_names("email", {"message": "email.message", "Message": "email.message"})
    monkeypatch.setattr("email.message", None, raising=False)
    monkeypatch.setattr("email.Message", None, raising=False)
    assert load("message") is sys.modules["email.message"]
    assert load("Message") is sys.modules["email.message"].Message
    assert names() == ["Message", "message"]


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    load, _ = lazy_names("email", {"Message": "email.message"})
    monkeypatch.setattr("email.Message", None, raising=False)
    found = load("Message")
    assert sys.modules["email"].Message is found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_importing_a_package_costs_no_torch(package: ModuleType) -> None:
    code = f"import sys, {package.__name__}; print({{'torch', 'hypothesis'}} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
