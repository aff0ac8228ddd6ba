from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

from kvharness import peer
from kvharness.cli import main
from kvharness.errors import UsageProblem
from kvharness.lineup import Lineup
from kvharness.registry import installed, require
from kvharness.spec import PolicySpec

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


def spec(text: str) -> PolicySpec:
    (one,) = PolicySpec.parse_list(text)
    return one


@pytest.fixture
def without_kvpress(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def found(name: str, *rest: Any) -> ModuleSpec | None:
        return None if name == "kvpress" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", found)


@pytest.mark.usefixtures("without_kvpress")
def test_without_kvpress_the_message_says_what_to_install() -> None:
    with pytest.raises(UsageProblem) as caught:
        Lineup.of(["kvpress:SnapKVPress(window_size=32)"])
    message = str(caught.value)
    assert message.startswith("--policy kvpress:SnapKVPress(window_size=32): kvpress is not inst")
    assert "pip install 'kvharness[kvpress]'" in message


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
    assert peer.NAMING in text
    assert "kvpress is not installed" in text
