from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from kvharness.discovery.registry import GROUP, ON_REQUEST, WRAPPERS, Installed
from kvharness.discovery.resolve import require, resolve
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import UsageProblem

NAMES = ("score", "plain", "wrapper", "one")


def offered(name: str, group: str = GROUP) -> Installed:
    """A policy of a distribution; nothing of it is ever imported here."""
    entry = EntryPoint(name, f"registered:{name}", group)
    return Installed(name=name, distribution="mine-kv", version="1.5", entry_point=entry)


@pytest.fixture
def known() -> dict[str, Installed]:
    return {name: offered(name) for name in NAMES}


def spec(text: str) -> PolicySpec:
    (one,) = PolicySpec.parse_list(text)
    return one


def test_the_near_match_and_everything_installed_are_named(known: dict[str, Installed]) -> None:
    with pytest.raises(UsageProblem) as caught:
        require(spec("wrapper(plane)"), known)
    text = str(caught.value)
    assert text.startswith("no policy named 'plane' is installed. Did you mean 'plain'? Installed:")
    assert all(f"\n    {name} (mine-kv 1.5)" in text for name in NAMES)
    require(spec("wrapper(plain)"), known)
    with pytest.raises(UsageProblem, match="no policy named 'plane'"):
        require(spec("wrapper(inner=plane())"), known)


@pytest.mark.parametrize("text", ["plain(16)", "wrapper(plain, 0.5)", "wrapper(plain(16))"])
def test_a_parameter_without_its_name(known: dict[str, Installed], text: str) -> None:
    with pytest.raises(UsageProblem, match=r"(\w+)\(.*: (16|0\.5) is no policy; .*, \1\(NAME=\2\)"):
        require(spec(text), known)


def test_a_name_may_begin_with_a_digit(known: dict[str, Installed]) -> None:
    known["2opt"] = offered("2opt")
    require(spec("wrapper(2opt)"), known)


@pytest.mark.parametrize(
    ("text", "inside"),
    [("around", "random"), ("around(inner=plain)", "plain"), ("around(of=x)", "random")],
)
def test_a_wrapper_that_wraps_nothing(known: dict[str, Installed], text: str, inside: str) -> None:
    known["around"] = offered("around", WRAPPERS)
    with pytest.raises(UsageProblem, match=rf"name one, such as 'around\({inside}\)'"):
        require(spec(text), known)


def test_nothing_is_installed() -> None:
    for texts in ((), ("snapkv",)):
        with pytest.raises(UsageProblem, match="run pip install kvharness-policies"):
            resolve(texts, {})


def test_each_specification_once_in_the_given_order(known: dict[str, Installed]) -> None:
    specs = resolve(["plain,score", "plain(window=3)", "score"], known)
    assert [each.slug for each in specs] == ["plain", "score", "plain+window3"]
    assert [each.name for each in resolve([], known)] == list(known)


def test_a_policy_on_request_runs_where_it_is_named_or_all_are(
    known: dict[str, Installed],
) -> None:
    known |= {"plain": offered("plain", ON_REQUEST), "one": offered("one", WRAPPERS)}
    usual = [name for name in known if name not in {"plain", "one"}]
    assert [each.name for each in resolve([], known)] == usual
    assert [each.name for each in resolve(["plain"], known)] == ["plain"]
    every = [name for name in known if name != "one"]
    assert [each.name for each in resolve(["all"], known)] == every
    assert [each.slug for each in resolve(["all,one(plain)"], known)] == [*every, "one+plain"]


def test_two_specifications_with_the_same_ids(known: dict[str, Installed]) -> None:
    with pytest.raises(UsageProblem, match=r"wrapper\(one, plain\) .* same test ids"):
        resolve(["wrapper(one(plain))", "wrapper(one, plain)"], known)
