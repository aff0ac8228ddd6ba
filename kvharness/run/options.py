"""Settings as pytest knows them: command-line options and their ini twins.

Light, since every pytest run imports it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Literal

from kvharness.settings.setting import as_text
from kvharness.settings.table import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from kvharness.settings.setting import Setting


def add_options(parser: pytest.Parser) -> None:
    """Declare an option and its ini twin for every setting."""
    group = parser.getgroup("kvharness", "KV-cache compression benchmarks (kvharness)")
    for setting in settings_of():
        group.addoption(setting.flag, **_arguments(setting))
        parser.addini(
            setting.name, f"Default of {setting.flag}", type=_ini_type(setting), default=None
        )


def _arguments(setting: Setting[Any]) -> dict[str, Any]:
    default = f" (default: {setting.default})" if setting.default else ""
    common = {"dest": setting.name, "default": None, "help": setting.help + default}
    if setting.switch:
        return {**common, "action": "store_true"}
    return {
        **common,
        "action": "append" if setting.many else "store",
        "metavar": "|".join(setting.choices) or setting.metavar,
        "type": _checked(setting),
    }


def _ini_type(setting: Setting[Any]) -> Literal["args", "bool", "string"]:
    if setting.many:
        return "args"
    return "bool" if setting.switch else "string"


def _checked(setting: Setting[Any]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not (setting.many or value.strip()):
            raise argparse.ArgumentTypeError("it is empty; leave the option out for its default")
        if setting.choices and value not in setting.choices:
            listed = ", ".join(setting.choices)
            raise argparse.ArgumentTypeError(f"{value!r} is not one of {listed}")
        return value

    return check


def given(config: pytest.Config) -> bool:
    """Whether an option is on the command line; a project's ini values alone start nothing."""
    return any(config.getoption(setting.name, default=None) for setting in settings_of())


def given_texts(config: pytest.Config, setting: Setting[Any]) -> tuple[str, ...]:
    """What was given as a setting, on the command line or else in an ini file; nothing if not."""
    found = config.getoption(setting.name, default=None)
    if found is None or found == []:
        found = config.getini(setting.name)
    if not found:
        return ()
    return tuple(found) if setting.many else (as_text(found),)
