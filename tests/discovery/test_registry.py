from __future__ import annotations

import importlib
import json
import re
import sys
from importlib.metadata import EntryPoint, PathDistribution
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.discovery import registry
from kvharness.discovery.registry import GROUP, Installed, installed, load
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import ParameterProblem, PolicyProblem, UsageProblem
from kvharness.policy.interface import FunctionPolicy, Policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
from dataclasses import dataclass, field

from kvharness import Policy, as_policy


def score(view):
    return view


def score_with_hint(view: object) -> "Tensor":
    return view


@as_policy()
def decorated(view):
    return view


@dataclass(frozen=True)
class Plain(Policy):
    window: int = 32
    pooling: str = "max"


@dataclass(frozen=True)
class Wrapper(Policy):
    inner: Policy
    floor: float = 0.2


@dataclass(frozen=True)
class Switch(Policy):
    on: bool = True


class NoDataclass(Policy):
    pass


class Loose(Policy):
    def __init__(self, file=""):
        self.kept = None


@dataclass(frozen=True)
class Opaque(Policy):
    pick: object = score


class Numbered:
    made = 0

    def __init__(self):
        Numbered.made += 1
        self.text = str(Numbered.made)

    def __repr__(self):
        return self.text


class Silent:
    def __repr__(self):
        raise ValueError("no text")


def counting() -> Policy:
    return Opaque(Numbered())


def silent() -> Policy:
    return Opaque(Silent())


instance = Plain(window=7)


def factory(window=3) -> Policy:
    return Plain(window=window)


def factory_of_one(inner) -> "Policy":
    return Wrapper(inner)


def makes_nothing() -> Policy:
    return None


number = 3


def raises() -> Policy:
    raise RuntimeError("first line\\nsecond line")
"""
NAMES = {
    "score": "score",
    "hint": "score_with_hint",
    "decorated": "decorated",
    "plain": "Plain",
    "wrapper": "Wrapper",
    "switch": "Switch",
    "no-dataclass": "NoDataclass",
    "loose": "Loose",
    "opaque": "Opaque",
    "counting": "counting",
    "silent": "silent",
    "instance": "instance",
    "factory": "factory",
    "one": "factory_of_one",
    "nothing": "makes_nothing",
    "number": "number",
    "raises": "raises",
    "absent": "gone",
}


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Installed]]:
    """Policies of a module of their own, as if a distribution had installed them."""
    (tmp_path / "registered.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    entries = {
        name: EntryPoint(name, f"registered:{target}", GROUP) for name, target in NAMES.items()
    }
    entries["unimportable"] = EntryPoint("unimportable", "no_such_module:Policy", GROUP)
    yield {
        name: Installed(name=name, distribution="mine-kv", version="1.5", entry_point=entry)
        for name, entry in entries.items()
    }
    sys.modules.pop("registered", None)


def spec(text: str) -> PolicySpec:
    (one,) = PolicySpec.parse_list(text)
    return one


def offer(monkeypatch: pytest.MonkeyPatch, *entries: Any) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: list(entries))


def entry_of(folder: Path, distribution: str, name: str, target: str) -> Any:
    """The entry point of a distribution that lies in a folder."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {target}\n")
    (entry,) = PathDistribution(info).entry_points
    return entry


# -- what is installed ----------------------------------------------------------------------------


def test_the_first_party_policies_are_found_sorted_and_not_imported() -> None:
    found = installed()
    assert list(found) == sorted(found)
    assert {"full", "floor", "oracle", "random", "snapkv"} <= set(found)
    assert str(found["snapkv"]).startswith("snapkv (kvharness-policies ")


def test_two_distributions_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(
        monkeypatch,
        entry_of(tmp_path, "one-kv", "mine", "one:Policy"),
        entry_of(tmp_path, "other-kv", "mine", "one:Policy"),
    )
    with pytest.raises(UsageProblem, match=r"'mine': one-kv 1\.0 and other-kv 1\.0; un"):
        installed()


def test_one_distribution_that_is_found_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(tmp_path, "one-kv", "mine", "one:Policy")
    offer(monkeypatch, entry, entry)
    assert list(installed()) == ["mine"]


@pytest.mark.parametrize(
    "name", ["Mine", "my policy", "-mine", "mine/yours", "über", "a(b)", "all"]
)
def test_a_name_that_cannot_be_an_id(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    offer(monkeypatch, EntryPoint(name, "one:Policy", GROUP))
    with pytest.raises(UsageProblem, match="unknown 0 offers a policy named"):
        installed()


# -- what is loaded -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "parameters"),
    [
        ("plain", "Plain", {"window": 32, "pooling": "max"}),
        ("plain(window=8)", "Plain", {"window": 8, "pooling": "max"}),
        ("instance", "Plain", {"window": 7, "pooling": "max"}),
        ("factory", "Plain", {"window": 3, "pooling": "max"}),
        ("factory(window=5)", "Plain", {"window": 5, "pooling": "max"}),
        ("no-dataclass", "NoDataclass", {}),
        ("score", "FunctionPolicy", {}),
        ("hint", "FunctionPolicy", {}),
        ("decorated", "FunctionPolicy", {}),
        (
            "wrapper(plain(window=8), floor=0.5)",
            "Wrapper",
            {"inner": {"Plain": {"window": 8, "pooling": "max"}}, "floor": 0.5},
        ),
        (
            "wrapper(floor=0.5, inner=plain(window=8))",
            "Wrapper",
            {"inner": {"Plain": {"window": 8, "pooling": "max"}}, "floor": 0.5},
        ),
        ("one(score)", "Wrapper", {"inner": {"FunctionPolicy": {}}, "floor": 0.2}),
    ],
)
def test_whatever_makes_a_policy_is_loaded(
    known: dict[str, Installed], text: str, kind: str, parameters: dict[str, Any]
) -> None:
    loaded = load(spec(text), known)
    assert isinstance(loaded.policy, Policy)
    assert type(loaded.policy).__name__ == kind
    assert json.loads(loaded.parameters) == parameters
    assert loaded.slug == spec(text).slug
    assert loaded.identity() == {
        "policy": text,
        "distribution": "mine-kv",
        "version": "1.5",
        "source": loaded.source,
        "parameters": loaded.parameters,
    }


def test_a_score_function_stays_itself(known: dict[str, Installed]) -> None:
    policy = load(spec("score"), known).policy
    assert isinstance(policy, FunctionPolicy)
    view: Any = object()
    assert policy.score(view) is view


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("unimportable", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("absent", "cannot be loaded: AttributeError"),
        ("raises", "cannot be loaded: RuntimeError: first line"),
        (
            "number",
            "cannot be loaded: TypeError: int is no policy; expected a function score(view)",
        ),
        ("nothing", "is a NoneType, expected a kvharness.Policy or a score function"),
        ("wrapper", "cannot be loaded: TypeError"),
    ],
)
def test_what_does_not_load_names_its_distribution(
    known: dict[str, Installed], text: str, reason: str
) -> None:
    with pytest.raises(PolicyProblem) as caught:
        load(spec(text), known)
    message = str(caught.value)
    assert f"policy {text!r}: from mine-kv 1.5 {reason}" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "given"), [("needs", "queries"), ("capabilities", {"nested": True}), ("positions", 1)]
)
def test_what_a_policy_declares_has_a_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: object
) -> None:
    source = f"from kvharness import Policy\nclass P(Policy):\n    {name} = {given!r}\n"
    (tmp_path / f"declares_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint(name="declares", value=f"declares_{name}:P", group=GROUP)
    found = Installed(name="declares", distribution="mine-kv", version="1", entry_point=entry)
    expected = {"needs": r"frozenset\({Queries"}.get(name, name.capitalize())
    message = rf"from mine-kv 1: {name} is a {type(given).__name__}, expected {expected}"
    with pytest.raises(PolicyProblem, match=message):
        load(PolicySpec(name="declares"), {"declares": found})


def test_a_wrapper_of_what_does_not_load_names_what_does_not(known: dict[str, Installed]) -> None:
    with pytest.raises(PolicyProblem, match=r"policy 'raises': from mine-kv 1\.5"):
        load(spec("wrapper(raises)"), known)


def test_an_edit_changes_the_source_of_a_policy_and_of_what_wraps_it(
    known: dict[str, Installed], tmp_path: Path
) -> None:
    texts = ("plain", "score", "wrapper(plain)", "wrapper(inner=plain())")
    before = [load(spec(text), known).source for text in texts]
    assert [load(spec(text), known).source for text in texts] == before
    (tmp_path / "registered.py").write_text(f'"""Another docstring."""\n{SOURCE}\n# edited\n')
    assert [load(spec(text), known).source for text in texts] == before
    (tmp_path / "registered.py").write_text(f"{SOURCE}\nedited = 1\n")
    after = [load(spec(text), known).source for text in texts]
    assert not set(before) & set(after)


def test_the_source_of_a_policy_is_read_once_and_only_when_it_is_asked_for(
    known: dict[str, Installed], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    def noted(modules: set[str], distribution: object) -> str:
        del distribution
        asked.append(modules)
        return "ab"

    monkeypatch.setattr(registry, "source_digest", noted)
    loaded = load(spec("wrapper(plain)"), known)
    assert not asked
    assert loaded.source == loaded.identity()["source"] == loaded.source
    # Of the policy and of the one inside it.
    assert asked == [{"registered"}] * 2


@pytest.mark.parametrize(
    "text", ["plain(pooling={!r})", "wrapper(plain(pooling={!r}))", "any({!r})"]
)
def test_a_file_that_a_parameter_names_counts_by_its_content(
    known: dict[str, Installed], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "heads.json"
    text = text.replace("any(", "loose(file=").format(str(file))
    without = load(spec(text), known).source
    file.write_text("[1]")
    first = load(spec(text), known).source
    file.write_text("[1, 2]")
    assert len({without, first, load(spec(text), known).source}) == 3
    file.write_text("[1]")
    assert load(spec(text), known).source == first


def test_a_parameter_whose_text_is_another_one_each_time_is_refused(
    known: dict[str, Installed],
) -> None:
    with pytest.raises(ParameterProblem) as caught:
        load(spec("opaque"), known)
    assert re.fullmatch(
        r"policy 'opaque': from mine-kv 1\.5: the parameter pick is <function score at 0x\w+>; "
        r"this text is another one in each process, so no record would be found again; give a "
        r"number, a text, an enum, or an object whose repr is always the same",
        str(caught.value),
    )
    with pytest.raises(ParameterProblem, match=r"the parameter pick is 1, and 2 when .* is built"):
        load(spec("counting"), known)
    with pytest.raises(ParameterProblem, match=r"cannot be written .* key: ValueError: no text"):
        load(spec("silent"), known)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "plain(windw=3)",
            r"'windw' \(did you mean window\?\); its parameters are window=32, pooling='max'$",
        ),
        ("plain(window=abc)", "TypeError: window='abc': expected a whole number such as 32; its"),
        ("plain(window=2.5)", "TypeError: window=2.5: expected a whole number such as 32; its"),
        ("plain(window=True)", "TypeError: window=True: expected a whole number such as 32; its"),
        ("wrapper(plain, floor=low)", "TypeError: floor='low': expected a number such as 0.2; its"),
        ("switch(on=false)", "TypeError: on='false': expected True or False; its para"),
        ("plain(plain)", "TypeError: window=Plain: expected no policy there; its parameters are"),
        ("wrapper(plain, inner=plain())", "TypeError: inner is given twice, by its place and by"),
        ("wrapper(plain, plain)", "TypeError: floor=Plain: expected no policy there; its param"),
        ("instance(window=3)", "TypeError: it takes no parameters; "),
        ("score(window=3)", "TypeError: .*; its parameters are view$"),
    ],
)
def test_parameters_that_there_are_not_are_answered_with_those_that_there_are(
    known: dict[str, Installed], text: str, reason: str
) -> None:
    with pytest.raises(ParameterProblem) as caught:
        load(spec(text), known)
    message = str(caught.value)
    assert message.startswith(f"policy {str(spec(text))!r}: from mine-kv 1.5 cannot be built: ")
    assert re.search(reason, message), message


def test_the_group_of_the_entry_points_is_public() -> None:
    assert registry.GROUP == "kvharness.policies"


def test_a_package_that_exits_when_it_is_imported_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint(name="leaves", value="leaves:Policy", group=GROUP)
    found = Installed(name="leaves", distribution="leaves-kv", version="1", entry_point=entry)
    with pytest.raises(PolicyProblem, match="leaves-kv 1 cannot be loaded: SystemExit"):
        load(PolicySpec(name="leaves"), {"leaves": found})
