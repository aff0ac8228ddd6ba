from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvharness.discovery.spec import PolicySpec
from kvharness.errors import UsageProblem

NAMES = st.from_regex(r"[a-z][a-z0-9.+-]{0,8}", fullmatch=True)
KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
VALUES = st.one_of(
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=12),
)
SPECS = st.recursive(
    st.builds(lambda name: PolicySpec(name=name), NAMES),
    lambda inner: st.builds(
        lambda name, arguments, parameters: PolicySpec(
            name=name, arguments=tuple(arguments), parameters=tuple(sorted(parameters.items()))
        ),
        NAMES,
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, st.one_of(VALUES, inner), max_size=3),
    ),
    max_leaves=5,
)
#: Texts made of what a specification is made of, so that some of them are almost right.
SCRAPS = st.lists(
    st.sampled_from([*"(),=-.'\" \\", "snapkv", "window", "16", "1e9", "0x1", "'a'", "None", "é"])
).map("".join)


def one(text: str) -> PolicySpec:
    (spec,) = PolicySpec.parse_list(text)
    return spec


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("snapkv", "snapkv"),
        (" streaming-llm ", "streaming-llm"),
        ("snapkv()", "snapkv"),
        ("snapkv(window=16)", "snapkv+window16"),
        ("snapkv( pooling = 'max' , window=8)", "snapkv+poolingmax+window8"),
        ("position(power=-1.5)", "position+power-1.5"),
        ("ada(snapkv)", "ada+snapkv"),
        ("ada(snapkv(window=4), floor=0.2)", "ada+snapkv+window4+floor0.2"),
        ("x(path='a/b c')", "x+patha-b-c"),
        ("kvpress:SnapKVPress(window_size=32)", "kvpress-SnapKVPress+window-size32"),
        ("kvpress:AdaKVPress(press=KnormPress())", "kvpress-AdaKVPress+pressKnormPress"),
    ],
)
def test_the_slug_names_all_of_a_policy(text: str, slug: str) -> None:
    assert one(text).slug == slug


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("-3", -3),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("0x10", 16),
        ("True", True),
        ("None", None),
        ("max", "max"),
        ("'max'", "max"),
        ('"it\'s"', "it's"),
        (r"'it\'s'", "it's"),
        ("a-b.c", "a-b.c"),
        ("1j", "1j"),
        ("1e999", "1e999"),
        ("007", "007"),
    ],
)
def test_values_are_python_literals_or_words(text: str, value: object) -> None:
    ((key, given_value),) = one(f"x(a={text})").parameters
    assert key == "a"
    assert given_value == value
    assert type(given_value) is type(value)


def test_a_list_keeps_its_order_and_parameters_are_sorted() -> None:
    specs = PolicySpec.parse_list("tova, snapkv(window=8, kernel=3),ada(h2o)")
    assert [str(spec) for spec in specs] == ["tova", "snapkv(kernel=3, window=8)", "ada(h2o)"]
    assert specs[2].names == ("ada", "h2o")


def test_a_parameter_in_parentheses_is_a_policy() -> None:
    spec = one("ada(scorer=h2o(window=3), alpha=0.1, text=h2o)")
    inner = PolicySpec(name="h2o", parameters=(("window", 3),))
    assert spec.parameters == (("alpha", 0.1), ("scorer", inner), ("text", "h2o"))
    assert spec.names == ("ada", "h2o")
    assert str(one("a(b=c())")) == "a(b=c())"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "snapkv,",
        ",snapkv",
        "snapkv tova",
        "snapkv(",
        "snapkv)",
        "snapkv(window=)",
        "snapkv(=3)",
        "snapkv(window=3",
        "snapkv(window=3,)",
        "snapkv(window 3)",
        "snapkv(window=1,window=2)",
        "snapkv(window=1,window=a)",
        "snapkv(8=3)",
        "snapkv('window'=3)",
        "'snapkv'",
        "-3",
        "x(a='b)",
        "x(a=b'c')",
        "x(a='\\')",
        r"x(a='\x')",
        "x(a=[1])",
        "a(" * 10 + "b" + ")" * 10,
        "a(b=" * 10 + "c" + ")" * 10,
        "a(b='c'())",
        "a" * 3000,
    ],
)
def test_what_is_no_list_of_policies(text: str) -> None:
    with pytest.raises(UsageProblem, match="expected names such as snapkv"):
        PolicySpec.parse_list(text)


@pytest.mark.parametrize(
    ("wrong", "shown"), [("h2o(3=4)", "=4)"), ("h2o)", "h2o)"), ("h2o§", "h2o§"), ("h2o(", "(")]
)
def test_a_long_list_is_shown_where_it_is_wrong(wrong: str, shown: str) -> None:
    with pytest.raises(UsageProblem, match=re.escape(f"' near '{shown}':")):
        PolicySpec.parse_list("snapkv," * 12 + wrong)


@given(st.lists(SPECS, min_size=1, max_size=3))
def test_what_is_shown_reads_as_it_was(specs: list[PolicySpec]) -> None:
    assert PolicySpec.parse_list(", ".join(map(str, specs))) == specs


@given(SPECS)
def test_slugs_are_safe_in_test_ids(spec: PolicySpec) -> None:
    assert re.fullmatch(r"[A-Za-z0-9.+-]+", spec.slug)
    assert spec.slug.startswith(spec.name)


@given(st.one_of(st.text(), SCRAPS, SCRAPS.map(lambda text: f"x(a={text})")))
@example("x(a=1,a=None)")
@example(f"x(a=0x{'f' * 4000})")
@example(f"x(a={'9' * 1900})")
@example("x(a='\0')")
@example("x(a='\\N{nothing}')")
@example("\udc80")
def test_nothing_but_a_usage_problem_is_raised(text: str) -> None:
    try:
        specs = PolicySpec.parse_list(text)
    except UsageProblem:
        return
    for spec in specs:
        assert re.fullmatch(r"[A-Za-z0-9.+-]+", spec.slug)
        assert one(str(spec)) == spec
