from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kvharness.contract import Contract, EvictMode, QuestionMode
from kvharness.engine.task import Generate
from kvharness.pretrained.find import DEFAULT_MODEL
from kvharness.settings.setting import Reach
from kvharness.settings.table import SettingTable, by_flag, contract_settings, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.settings.setting import Setting


@pytest.mark.parametrize("setting", settings_of(), ids=lambda setting: setting.flag)
def test_entries_follow_the_house_rules(setting: Setting[Any]) -> None:
    assert setting.flag.startswith("--kv-") or setting.flag in {"--policy", "--retention"}
    assert setting.help[0].isupper()
    assert not setting.help.endswith(".")
    assert not setting.choices or setting.default in setting.choices
    assert not (setting.many and setting.switch)
    shown = setting.show(setting.read_text(""))
    assert shown == setting.default or not setting.stored_at, "a default is shown as it is given"


def test_flags_are_unique() -> None:
    assert len(by_flag()) == len(settings_of())


def test_each_belongs_to_one_reach() -> None:
    parts = [settings_of(reach) for reach in Reach]
    assert sorted(each.flag for part in parts for each in part) == sorted(by_flag())
    assert settings_of(Reach.RUN, Reach.ANSWER) == tuple(
        each for each in settings_of() if each.reach is not Reach.CONTRACT
    )


def test_choices_are_those_of_what_they_become() -> None:
    assert SettingTable.question.choices == tuple(QuestionMode)
    assert SettingTable.evict.choices == tuple(EvictMode)
    assert SettingTable.generate.choices == tuple(Generate)
    assert SettingTable.model.default == DEFAULT_MODEL


def test_a_contract_has_each_of_its_settings() -> None:
    assert list(contract_settings()) == list(Contract().as_dict())


@pytest.mark.parametrize(
    ("found", "wanted", "agrees"),
    [
        ("tiny", "tiny", "yes"),
        ("tiny", "models/tiny", "yes"),
        ("tiny", "gone/tiny", "no"),
        ("other", "models/tiny", "no"),
    ],
)
def test_a_model_that_is_a_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str, wanted: str, agrees: str
) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert SettingTable.model.agrees(found, wanted) is (agrees == "yes")
