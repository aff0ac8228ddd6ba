from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness import Policy
from kvharness.discovery.code_digest import file_digest
from kvharness.discovery.parameters import (
    files_digest,
    named_files,
    parameters_text,
    unstable_parameter,
)
from kvharness.policy.interface import FunctionPolicy

if TYPE_CHECKING:
    from collections.abc import Callable


class Pool(StrEnum):
    MAX = "max"


class Level(IntEnum):
    LOW = 1


class Kind(Enum):
    NEAR = len


@dataclass(frozen=True)
class Sizes:
    low: float = 0.5
    names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class One(Policy):
    value: Any = None


@dataclass(frozen=True)
class Derived(Policy):
    value: int = 2
    twice: object = field(init=False, default_factory=object)


class Named:
    def __repr__(self) -> str:
        return "Named()"


def text_of(value: object) -> object:
    return json.loads(parameters_text(One(value)))["value"]


@pytest.mark.parametrize(
    ("value", "due"),
    [
        (None, None),
        (True, True),
        (1, 1),
        (0.5, 0.5),
        ("text", "text"),
        (Pool.MAX, "max"),
        (Level.LOW, "Level.LOW"),
        (Kind.NEAR, "Kind.NEAR"),
        (Path("a") / "b", "a/b"),
        ((1, ("a", None)), [1, ["a", None]]),
        ([0.5, Pool.MAX], [0.5, "max"]),
        ({"a": (1,), 2: "b"}, {"a": [1], "2": "b"}),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({3, 1}), [1, 3]),
        (Sizes(names=frozenset({"b", "a"})), {"Sizes": {"low": 0.5, "names": ["a", "b"]}}),
        (One(One(3)), {"One": {"value": {"One": {"value": 3}}}}),
        (Named(), "Named()"),
        (1 + 2j, "(1+2j)"),
        (Sizes, repr(Sizes)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_text_of_a_parameter(value: object, due: object) -> None:
    assert text_of(value) == due
    assert unstable_parameter(One(value), lambda: One(value)) == ""


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(plain)
def test_what_json_can_hold_stays_itself(value: object) -> None:
    assert text_of(value) == json.loads(json.dumps(value))


@given(plain, plain)
def test_other_parameters_have_another_text(one: object, other: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (parameters_text(One(one)) == parameters_text(One(other))) == same


def test_what_follows_from_parameters_is_none() -> None:
    assert parameters_text(Derived(3)) == '{"value": 3}'
    assert unstable_parameter(Derived(3), pytest.fail) == ""
    assert parameters_text(FunctionPolicy(function=len)) == "{}"  # type: ignore[arg-type]
    assert parameters_text(Policy()) == "{}"


def test_a_text_is_the_same_in_another_process() -> None:
    code = (
        "from tests.discovery.test_parameters import One, Pool, Sizes, parameters_text\n"
        "value = [{'sink', 'recent', 'value'}, Sizes(names=frozenset('kvharness')), Pool.MAX]\n"
        "print(parameters_text(One(value)))\n"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env={"PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(texts) == 1


@pytest.mark.parametrize(
    "value",
    [
        object(),
        [].append,
        lambda view: view,
        [1, object()],
        {"a": object()},
        One(object()),
        (Sizes(low=object()),),  # type: ignore[arg-type]
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_address_is_refused_even_where_two_builds_share_it(value: object) -> None:
    told = unstable_parameter(One(value), lambda: One(value))
    assert told.startswith("the parameter value is ")
    assert "at 0x" in told
    assert told.endswith(
        "; this text is another one in each process, so no record would be found again; give a "
        "number, a text, an enum, or an object whose repr is always the same"
    )


def test_a_text_that_changes_is_refused() -> None:
    class Counted:
        def __init__(self) -> None:
            self.number = next(numbers)

        def __repr__(self) -> str:
            return f"Counted({self.number})"

    numbers = iter(range(9))
    build: Callable[[], Policy] = lambda: One(Counted())  # noqa: E731
    told = unstable_parameter(build(), build)
    assert told.startswith(
        "the parameter value is Counted(0), and Counted(1) when the policy is built again; this "
    )
    assert "is Named(), and nothing when the" in unstable_parameter(One(Named()), lambda: None)


def test_a_policy_is_built_again_only_where_a_parameter_says_nothing_of_itself() -> None:
    assert unstable_parameter(One([1, "a", Pool.MAX, Path("b"), {2.0}]), pytest.fail) == ""


def test_files_that_parameters_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for path in paths:
        path.write_text(path.name)
    (tmp_path / "folder").mkdir()
    values = ["a.json", paths[1], "~/c.json", "folder", "gone.json", "", "\0", "x" * 5000, 3, None]
    assert set(named_files(values)) == set(paths)
    held = [One({"first": ["a.json", (paths[1],)]}), {One(One("c.json"))}]
    assert set(named_files(held)) == set(paths)
    assert files_digest(held) == files_digest(values) == " ".join(sorted(map(file_digest, paths)))
    assert files_digest(["folder", "max", 3]) == ""


def test_where_a_file_lies_does_not_matter(tmp_path: Path) -> None:
    found = set()
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        for name, text in {"a": "x", "b": "y"}.items():
            (folder / name).write_text(text)
        found.add(files_digest([folder / "a", folder / "b"]))
        found.add(files_digest([folder / "b", folder / "a", folder / "b"]))
    assert len(found) == 1
