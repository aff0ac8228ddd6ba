from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.run.options import given, given_texts
from kvharness.settings.table import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

BY_NAME = {setting.name: setting for setting in settings_of()}


@pytest.fixture
def parse(pytester: pytest.Pytester) -> Callable[..., pytest.Config]:
    def config(*arguments: str, **ini: str) -> pytest.Config:
        rows = "".join(f"{name} = {value}\n" for name, value in ini.items())
        pytester.makeini(f"[pytest]\n{rows}")
        return pytester.parseconfig(*arguments)

    return config


def test_nothing_is_given_by_default(parse: Callable[..., pytest.Config]) -> None:
    config = parse()
    assert not given(config)
    assert not any(given_texts(config, setting) for setting in settings_of())


@pytest.mark.parametrize(
    ("arguments", "ini", "name", "expected"),
    [
        (["--kv-seeds=3"], {}, "kv_seeds", ("3",)),
        ([], {"kv_seeds": "4"}, "kv_seeds", ("4",)),
        (["--kv-seeds=3"], {"kv_seeds": "4"}, "kv_seeds", ("3",)),
        (["--policy=a,b", "--policy=c"], {"policy": "d"}, "policy", ("a,b", "c")),
        ([], {"policy": "a 'b(c=1, d=2)'"}, "policy", ("a", "b(c=1, d=2)")),
        (["--kv-hard"], {"kv_hard": "false"}, "kv_hard", ("true",)),
        ([], {"kv_hard": "yes"}, "kv_hard", ("true",)),
        ([], {"kv_hard": "no"}, "kv_hard", ()),
        (["--retention="], {}, "retention", ("",)),
    ],
)
def test_the_command_line_comes_before_the_ini_file(
    parse: Callable[..., pytest.Config],
    arguments: list[str],
    ini: dict[str, str],
    name: str,
    expected: tuple[str, ...],
) -> None:
    assert given_texts(parse(*arguments, **ini), BY_NAME[name]) == expected


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

    assert all(plain(config.getoption(setting.name)) for setting in settings_of())


def test_a_choice_is_checked_where_it_is_read(parse: Callable[..., pytest.Config]) -> None:
    with pytest.raises(pytest.UsageError, match="'int8' is not one of auto, float32"):
        parse("--kv-dtype=int8")


def test_importing_the_options_imports_next_to_nothing() -> None:
    code = "import sys, kvharness.run.options; print(*sorted(m for m in sys.modules if 'kv' in m))"
    shown = subprocess.check_output([sys.executable, "-c", code], text=True)
    own = ["run", "run.options", "settings", "settings.setting", "settings.table"]
    assert shown.split() == ["kvharness", *(f"kvharness.{name}" for name in own)]
