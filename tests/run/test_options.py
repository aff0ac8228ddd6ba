from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.run.options import OPTIONS, Option, given, raw_value

if TYPE_CHECKING:
    from collections.abc import Callable

BY_NAME = {option.name: option for option in OPTIONS}


@pytest.fixture
def parse(pytester: pytest.Pytester) -> Callable[..., pytest.Config]:
    def config(*arguments: str, **ini: str) -> pytest.Config:
        rows = "".join(f"{name} = {value}\n" for name, value in ini.items())
        pytester.makeini(f"[pytest]\n{rows}")
        return pytester.parseconfig(*arguments)

    return config


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.flag)
def test_flags_and_help_follow_the_house_rules(option: Option) -> None:
    assert option.flag.startswith("--kv-") or option.flag in {"--policy", "--retention"}
    assert option.name == option.flag.lstrip("-").replace("-", "_")
    assert option.help[0].isupper()
    assert not option.help.endswith(".")
    assert not option.choices or option.default in option.choices
    assert not (option.many and option.switch)


def test_flags_are_unique() -> None:
    assert len(BY_NAME) == len(OPTIONS)


def test_nothing_is_given_by_default(parse: Callable[..., pytest.Config]) -> None:
    config = parse()
    assert not given(config)
    assert [raw_value(config, option) for option in OPTIONS] == [None] * len(OPTIONS)


@pytest.mark.parametrize(
    ("arguments", "ini", "name", "expected"),
    [
        (["--kv-seeds=3"], {}, "kv_seeds", "3"),
        ([], {"kv_seeds": "4"}, "kv_seeds", "4"),
        (["--kv-seeds=3"], {"kv_seeds": "4"}, "kv_seeds", "3"),
        (["--policy=a,b", "--policy=c"], {"policy": "d"}, "policy", ["a,b", "c"]),
        ([], {"policy": "a 'b(c=1, d=2)'"}, "policy", ["a", "b(c=1, d=2)"]),
        (["--kv-hard"], {"kv_hard": "false"}, "kv_hard", True),
        ([], {"kv_hard": "yes"}, "kv_hard", True),
        ([], {"kv_hard": "no"}, "kv_hard", None),
        (["--retention="], {}, "retention", [""]),
    ],
)
def test_the_command_line_comes_before_the_ini_file(
    parse: Callable[..., pytest.Config],
    arguments: list[str],
    ini: dict[str, str],
    name: str,
    expected: object,
) -> None:
    assert raw_value(parse(*arguments, **ini), BY_NAME[name]) == expected


def test_only_the_command_line_asks_for_a_run(parse: Callable[..., pytest.Config]) -> None:
    assert given(parse("--kv-seeds=3"))
    assert given(parse("--kv-fresh"))
    assert not given(parse(kv_seeds="3", kv_hard="true", policy="snapkv"))


def test_values_are_builtins_for_xdist_to_send(parse: Callable[..., pytest.Config]) -> None:
    config = parse("--policy=a", "--kv-dtype=float32", "--kv-hard", "--kv-seeds=2")

    def plain(value: Any) -> bool:
        if isinstance(value, list):
            return all(plain(each) for each in value)
        return type(value) in {str, bool, type(None)}

    assert all(plain(config.getoption(option.name)) for option in OPTIONS)


def test_a_choice_is_checked_where_it_is_read(parse: Callable[..., pytest.Config]) -> None:
    with pytest.raises(pytest.UsageError, match="'int8' is not one of auto, float32"):
        parse("--kv-dtype=int8")


def test_importing_the_options_imports_next_to_nothing() -> None:
    code = "import sys, kvharness.run.options; print(*sorted(m for m in sys.modules if 'kv' in m))"
    shown = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert shown.split() == [
        "kvharness",
        "kvharness._lazy",
        "kvharness.run",
        "kvharness.run.options",
    ]
