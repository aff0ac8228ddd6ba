from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import pytest

from kvharness.cli.main import main
from kvharness.discovery import presses
from kvharness.discovery.registry import installed
from kvharness.discovery.resolve import require
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import UsageProblem
from kvharness.run.policies import Lineup

if TYPE_CHECKING:
    from pathlib import Path


def spec(text: str) -> PolicySpec:
    (one,) = PolicySpec.parse_list(text)
    return one


@pytest.fixture
def without_kvpress(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def found(name: str) -> str:
        if name == "kvpress":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", found)


@pytest.mark.usefixtures("without_kvpress")
def test_without_kvpress_the_message_says_what_to_install() -> None:
    with pytest.raises(UsageProblem) as caught:
        Lineup.of(["kvpress:SnapKVPress(window_size=32)"])
    message = str(caught.value)
    assert message.startswith("--policy kvpress:SnapKVPress(window_size=32): kvpress is not inst")
    assert "pip install 'kvharness[kvpress]'" in message


@pytest.mark.usefixtures("without_kvpress")
def test_a_folder_of_that_name_is_not_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kvpress").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert presses.peer_version() is None


@pytest.mark.parametrize("text", ["ada(kvpress:KnormPress)", "ada(scorer=kvpress:KnormPress())"])
def test_our_wrappers_do_not_wrap_presses(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"kvpress:AdaKVPress\(press=KnormPress\(\)\)"):
        require(spec(text), installed())


@pytest.mark.usefixtures("without_kvpress")
def test_the_list_of_policies_says_how_presses_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["policies"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert presses.NAMING in text
    assert "kvpress is not installed" in text
