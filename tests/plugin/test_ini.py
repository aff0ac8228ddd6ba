from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Lab, MakeLab

FEW = {"kv_claims": "off", "policy": "snapkv", "retention": "0.25", "kv_seeds": "1"}


@pytest.fixture(scope="module")
def place(make_lab: MakeLab) -> Lab:
    """Collecting changes nothing, so one folder serves all."""
    return make_lab()


def collect(lab: Lab, ini: dict[str, str], *given: str, code: int = pytest.ExitCode.OK) -> str:
    """What ``--collect-only`` prints where a project has ini values."""
    file = lab.folder / "twins.ini"
    rows = "\n".join(f"{name} = {value}" for name, value in ini.items())
    file.write_text(f"[pytest]\n{rows}\n")
    arguments = ("--collect-only", f"-c{file}", "-pno:cacheprovider", *given)
    result = lab.main("--import-mode=importlib", "-Werror", "suites/test_needle.py", *arguments)
    text = "\n".join([*result.outlines, *result.errlines])
    assert result.ret == code, text
    return text


@pytest.mark.parametrize(
    ("ini", "expected"),
    [
        ({"policy": "tova"}, r"\[tova-r0\.25-s0\]"),
        ({"policy": "tova\n    snapkv(window=8)"}, r"\[snapkv\+window8-r0\.25-s0\]"),
        ({"retention": "0.3 0.6"}, r"\[snapkv-r0\.6-s0\]"),
        ({"kv_seeds": "2"}, r"\[snapkv-r0\.25-s1\]"),
        ({"kv_items": "7"}, r" in 1 groups of 7 items;"),
        ({"kv_context": "333"}, r" context 333,"),
        ({"kv_model": "folder/mine"}, r" folder/mine, context"),
        ({"kv_question": "seen"}, r" question seen;"),
        ({"kv_claims": "report"}, r"\[random-r0\.25-s0\]"),
        ({"kv_store": "elsewhere"}, r" store \S+/root/elsewhere"),
        ({"kv_shard": "2/2", "kv_seeds": "2"}, r"4/8 tests collected \(4 deselected\)"),
    ],
    ids=str,
)
def test_each_option_has_an_ini_twin(place: Lab, ini: dict[str, str], expected: str) -> None:
    assert re.search(expected, collect(place, {**FEW, **ini}))


def test_the_command_line_wins(place: Lab) -> None:
    text = collect(place, {**FEW, "kv_context": "333", "policy": "tova"}, "--kv-context=444")
    assert " context 444," in text
    assert "[tova-r0.25-s0]" in text
    assert "[tova" not in collect(place, {**FEW, "policy": "tova"}, "--policy=snapkv")


def test_a_switch(place: Lab) -> None:
    for value, hard in (("true", True), ("false", False)):
        text = collect(place, {**FEW, "kv_hard": value}, "suites/test_qa.py")
        assert ("test_qa_two_hop[" in text) is hard


@pytest.mark.parametrize(
    ("ini", "message"),
    [
        ({"policy": "snapvk"}, "Did you mean 'snapkv'?"),
        ({"retention": "2"}, "--retention '2': expected a fraction in (0, 1]"),
        ({"kv_seeds": "many"}, "--kv-seeds 'many': expected a whole number from 1"),
        ({"kv_question": "known"}, "--kv-question 'known': expected one of unseen, seen"),
        ({"kv_shard": "2"}, "--kv-shard '2': expected I/N"),
        ({"kv_data": "needle=x"}, "real data is for qa or summarization, not 'needle'"),
        ({"kv_hard": "perhaps"}, "perhaps"),
    ],
    ids=str,
)
def test_a_bad_value_is_a_usage_error(place: Lab, ini: dict[str, str], message: str) -> None:
    text = collect(place, {**FEW, **ini}, code=pytest.ExitCode.USAGE_ERROR)
    assert message in text
    assert "Traceback" not in text
    assert not re.search(r"\.py:\d", text)
