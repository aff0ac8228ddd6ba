from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.cell import Cell
from kvharness.contract import retention_from_text
from kvharness.discovery import registry
from kvharness.discovery.spec import PolicySpec
from kvharness.pretrained.find import find_model
from kvharness.pretrained.prompt import Encoder
from kvharness.run.identity import RunIdentity
from kvharness.run.items import Supply
from kvharness.settings.setting import Reach, Setting, as_given
from kvharness.settings.table import SettingTable
from tests.run.test_settings import settings

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.items.item import Item

CELL = Cell(suite="needle", policy="random", retention=retention_from_text("0.25"), seed=0)
SMALL = {"kv_context": "300", "kv_items": "1", "kv_device": "cpu", "kv_dtype": "float32"}


def identity(model: Path, **raw: Any) -> RunIdentity:
    source = find_model(str(model))
    loaded = registry.load(PolicySpec(name="random"), registry.installed())
    made = settings({**SMALL, "kv_model": str(model), **raw})
    return RunIdentity(made, source, Encoder(source.tokenizer()), {"random": loaded})


@pytest.fixture(scope="module")
def item(tiny_model: Path) -> Item:
    drawn = Supply(settings(SMALL), find_model(str(tiny_model))).items(CELL.group)
    return drawn[0]


def test_what_changes_answers_changes_keys(tiny_model: Path, item: Item) -> None:
    key = identity(tiny_model).key(CELL, item, "")
    assert identity(tiny_model).key(CELL, item, "") == key
    assert identity(tiny_model).key(CELL, item, "weights") != key
    others = ({"kv_sinks": "3"}, {"kv_dtype": "bfloat16"}, {"kv_generate": "all"})
    assert len({key, *(identity(tiny_model, **raw).key(CELL, item, "") for raw in others)}) == 4


def test_what_only_a_run_has_changes_no_key(tiny_model: Path, item: Item) -> None:
    raw = {"kv_seeds": "7", "kv_fresh": True, "kv_store": "there", "kv_dtype": "float32"}
    key = identity(tiny_model).key(CELL, item, "")
    assert identity(tiny_model, **raw).key(CELL, item, "") == key


def test_an_option_is_in_the_key_unless_it_is_default(
    tiny_model: Path, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = identity(tiny_model).key(CELL, item, "")
    glue = Setting(
        flag="--kv-glue", help="Glue", parse=as_given, default="paste", reach=Reach.ANSWER
    )
    monkeypatch.setattr(SettingTable, "glue", glue, raising=False)
    assert identity(tiny_model).key(CELL, item, "") == key
    other = identity(tiny_model, kv_glue="tape")
    assert other.key(CELL, item, "") != key
    assert other.shared["options"] == {"--kv-glue": "tape"}


def test_the_header_says_what_was_run(tiny_model: Path) -> None:
    made = identity(tiny_model, kv_seeds="3", kv_data=["qa=mine.jsonl"])
    found = made.header().settings
    assert found["model"]["name"] == "tiny"
    assert {**found["model"], **made.model} == found["model"]
    assert (found["seeds"], found["items"], found["data"]) == (3, 1, {"qa": "mine.jsonl"})
    assert found["options"]["--kv-dtype"] == "float32"
    assert found["contract"]["context"] == 300
    assert list(found["policies"]) == ["random"]
    assert json.dumps(found)
