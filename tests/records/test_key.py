from __future__ import annotations

import copy
import importlib.metadata
import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness import Protection
from kvharness.cell import Cell
from kvharness.contract import Contract, QuestionMode
from kvharness.records.key import record_key, shared_key

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = {
    "digest": "0123",
    "dtype": "float32",
    "device": "cpu",
    "kernel": "kvharness-sdpa",
    "template": "4567",
}
POLICY = {
    "policy": "snapkv(window=16)",
    "distribution": "kvharness-policies",
    "version": "0.1.0",
    "source": "89ab",
    "parameters": '{"window": 16}',
}
ITEM = {"digest": "cdef", "name": "qa-s1-00", "variant": "facts", "evidence": [[[3, 5]], []]}
CELL = Cell(suite="qa", policy="snapkv+window16", retention=Fraction(1, 4), seed=1)
BASE: dict[str, Any] = {
    "model": MODEL,
    "contract": Contract(),
    "generate": "first",
    "schema": 1,
    "engine": 1,
    "policy": POLICY,
    "cell": CELL,
    "item": ITEM,
}


def key_of(parts: dict[str, Any]) -> str:
    names = ("generate", "schema", "engine")
    contract = parts["contract"].as_dict()
    shared = shared_key(parts["model"], contract, **{name: parts[name] for name in names})
    return record_key(shared, parts["policy"], parts["cell"], parts["item"])


def changed(part: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda parts: parts.__setitem__(part, change(parts[part]))


def longer(part: str, name: str) -> Callable[[dict[str, Any]], None]:
    """One text in a mapping has a character more."""
    return lambda parts: parts[part].__setitem__(name, parts[part][name] + "x")


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    **{f"model {name}": longer("model", name) for name in MODEL},
    **{f"policy {name}": longer("policy", name) for name in POLICY},
    "context": changed("contract", lambda c: replace(c, context=c.context + 1)),
    "sinks": changed("contract", lambda c: replace(c, protection=replace(c.protection, sinks=5))),
    "recents": changed(
        "contract", lambda c: replace(c, protection=replace(c.protection, recents=5))
    ),
    "question": changed("contract", lambda c: replace(c, question=QuestionMode.SEEN)),
    "another setting": changed("contract", lambda c: replace(c, others=(("fold", 3),))),
    "generate": changed("generate", lambda _: "all"),
    "schema": changed("schema", lambda number: number + 1),
    "engine": changed("engine", lambda number: number + 1),
    "suite": changed("cell", lambda cell: replace(cell, suite="needle")),
    "retention": changed("cell", lambda cell: replace(cell, retention=Fraction(1, 3))),
    "no retention": changed("cell", lambda cell: replace(cell, retention=None)),
    "seed": changed("cell", lambda cell: replace(cell, seed=2)),
    "item digest": longer("item", "digest"),
    "item name": longer("item", "name"),
    "item variant": longer("item", "variant"),
    "item evidence": lambda parts: parts["item"].update(evidence=[[], [[3, 5]]]),
}


@given(names=st.sets(st.sampled_from(sorted(CHANGES)), min_size=1))
def test_any_changed_ingredient_changes_the_key(names: set[str]) -> None:
    parts = copy.deepcopy(BASE)
    for name in sorted(names):
        CHANGES[name](parts)
    assert key_of(parts) != key_of(BASE)


def test_no_two_changes_give_the_same_key() -> None:
    keys = [key_of(BASE)]
    for change in CHANGES.values():
        parts = copy.deepcopy(BASE)
        change(parts)
        keys.append(key_of(parts))
    assert len(set(keys)) == len(CHANGES) + 1
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in keys)


@given(data=st.data())
def test_the_order_of_a_mapping_does_not_matter(data: st.DataObject) -> None:
    parts = copy.deepcopy(BASE)
    for name in ("model", "policy"):
        order = data.draw(st.permutations(list(parts[name])))
        parts[name] = {each: parts[name][each] for each in order}
    assert key_of(parts) == key_of(BASE)


def test_every_part_of_a_contract_is_in_the_key() -> None:
    names = {field.name for field in fields(Contract)} - {"protection", "others"}
    names |= {field.name for field in fields(Protection)}
    assert set(Contract().as_dict()) == names
    assert set(Contract(others=(("fold", 3),)).as_dict()) == names | {"fold"}


def test_the_policys_name_as_a_column_is_not_an_ingredient() -> None:
    # Two ways of writing the same policy share their records: `identity` names it.
    parts = copy.deepcopy(BASE)
    parts["cell"] = replace(CELL, policy="snapkv")
    assert key_of(parts) == key_of(BASE)


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_other_versions_have_other_keys(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(BASE)
    usual = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "999" if name == package else usual(name),
    )
    assert key_of(BASE) != before


def test_a_key_is_the_same_in_another_process() -> None:
    code = (
        "import json, sys\n"
        "from fractions import Fraction\n"
        "from kvharness.cell import Cell\n"
        "from kvharness.records.key import record_key\n"
        "shared, policy, item = json.loads(sys.stdin.read())\n"
        "cell = Cell(suite='qa', policy='snapkv', retention=Fraction(1, 4), seed=1)\n"
        "print(record_key(shared, policy, cell, item))\n"
    )
    shared = {"schema": 1, "model": MODEL}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([shared, POLICY, ITEM]),
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == record_key(shared, POLICY, CELL, ITEM)
