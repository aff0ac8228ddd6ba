from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvharness.contract import Contract, Protection, QuestionMode, budget_of
from kvharness.errors import UsageProblem
from kvharness.run.settings import Settings, contract_of
from kvharness.settings.table import settings_of

ROOT, HERE = Path("/root-of-tests"), Path("/where-pytest-was-started")
TEXTS = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"-?[0-9./eE,]{0,12}", fullmatch=True),
    st.sampled_from(
        ["0.1,0.25", "1/3", "1e9", "9" * 40, "²", "٣", "auto", "seen", "qa=x", "~no/x"]
    ),
)


def values(setting: Any) -> st.SearchStrategy[Any]:
    if setting.switch:
        return st.booleans()
    text = st.one_of(TEXTS, st.sampled_from(setting.choices or [setting.default]))
    return st.lists(text, max_size=3) if setting.many else text


RAW = st.fixed_dictionaries({}, optional={each.name: values(each) for each in settings_of()})


def settings(raw: dict[str, Any] | None = None, **more: Any) -> Settings:
    """Of a command line with these values."""
    given_values = {**(raw or {}), **more}
    config = SimpleNamespace(
        rootpath=ROOT,
        invocation_params=SimpleNamespace(dir=HERE),
        getoption=lambda name, default=None: given_values.get(name, default),
        getini=lambda _: None,
    )
    return Settings.of(cast("pytest.Config", config))


def test_options_are_those_that_differ_from_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().options() == {}
    monkeypatch.chdir("/")
    given = {
        "kv_model": "../tiny",
        "kv_device": "cuda:1",
        "kv_dtype": "float32",
        "kv_threads": "2",
        "kv_generate": "none",
        "kv_haystack": "hay.txt",
    }
    expected = {f"--{name.replace('_', '-')}": value for name, value in given.items()}
    hay = str(HERE / "hay.txt").removeprefix("/")
    assert settings(given).options() == {**expected, "--kv-haystack": hay}


def test_defaults() -> None:
    made = settings()
    assert made.retentions == tuple(map(Fraction, ("0.1", "0.25", "0.5", "0.75")))
    assert (made.seeds, made.items, made.contract.context) == (5, 12, 1024)
    assert made.contract.as_dict() == {
        "context": 1024,
        "sinks": 4,
        "recents": 16,
        "question": "unseen",
        "evict": "prefill",
    }
    assert made.store == ROOT / ".kvharness"
    assert made.shard == (1, 1)
    assert made.replay is None
    assert (made.retentions_given, made.seeds_given) == (False, False)
    assert not made.policies
    assert (made.hard, made.fresh, made.data, made.haystack) == (False, False, (), None)


def test_the_contract_of_a_header_is_read_back() -> None:
    contract = Contract(
        context=400, protection=Protection(sinks=3, recents=5), question=QuestionMode.SEEN
    )
    assert contract_of({**contract.as_dict(), "later": 1}) == contract
    assert contract_of({}) == Contract() == settings().contract, "the defaults are told once each"


def test_what_is_given_is_told_from_the_default_of_the_same_value() -> None:
    made = settings(retention=["0.1,0.25,0.5,0.75"], kv_seeds="5")
    assert (made.retentions_given, made.seeds_given) == (True, True)


def test_what_a_replay_must_be_of_is_what_was_given() -> None:
    assert settings().demanded == {}
    given = settings(kv_context="1024", kv_question="seen", kv_items="3", kv_evict="prefill")
    assert given.demanded == {
        "--kv-items": "3",
        "--kv-context": "1024",
        "--kv-question": "seen",
        "--kv-evict": "prefill",
    }
    machine = settings(kv_dtype="auto", kv_device="cuda:1", kv_generate="all", kv_threads="7")
    assert machine.demanded == {
        "--kv-device": "cuda",
        "--kv-generate": "all",
        "--kv-threads": "7",
    }


def test_a_suite_has_one_source_of_data() -> None:
    made = settings(kv_data=["qa=one.jsonl", "qa=one.jsonl", "summarization=two.jsonl"])
    assert made.data == (("qa", "one.jsonl"), ("summarization", "two.jsonl"))
    with pytest.raises(
        UsageProblem, match=r"--kv-data qa=one.jsonl and qa=two.jsonl: expected one"
    ):
        settings(kv_data=["qa=one.jsonl", "qa=two.jsonl"])


def test_retentions_are_exact_sorted_and_unique() -> None:
    made = settings(retention=["0.5, 0.10", "1/10,1", ".25"])
    assert made.retentions == (Fraction(1, 10), Fraction(1, 4), Fraction(1, 2), Fraction(1))


def test_paths_are_relative_to_the_rootdir_but_the_haystack_to_the_shell() -> None:
    made = settings(kv_store="runs/one", kv_replay="old", kv_haystack="book.txt")
    assert made.store == ROOT / "runs" / "one"
    assert made.replay == ROOT / "old"
    assert made.haystack == HERE / "book.txt"
    assert settings(kv_store="/elsewhere").store == Path("/elsewhere")
    assert settings(kv_store="~/runs").store == Path.home() / "runs"


def test_data_is_split_at_the_first_equals_sign() -> None:
    made = settings(kv_data=["qa=a=b.jsonl", "summarization=org/name:config:split"])
    assert made.data == (("qa", "a=b.jsonl"), ("summarization", "org/name:config:split"))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"retention": ["0.1,x"]}, r"--retention 'x': expected a fraction"),
        ({"retention": ["2"]}, r"--retention '2'"),
        ({"kv_seeds": "0"}, r"--kv-seeds '0': expected a whole number from 1"),
        ({"kv_items": "-1"}, r"--kv-items '-1'"),
        ({"kv_context": "10000001"}, r"--kv-context '10000001'"),
        ({"kv_seeds": "²"}, r"--kv-seeds '²'"),
        ({"kv_shard": "2/1"}, r"--kv-shard '2/1': expected I/N"),
        ({"kv_shard": "0/1"}, r"--kv-shard '0/1'"),
        ({"kv_shard": " 1/2"}, r"--kv-shard ' 1/2'"),
        ({"kv_dtype": "int8"}, r"--kv-dtype 'int8': expected one of auto, float32"),
        ({"kv_data": ["=x"]}, r"--kv-data '=x': expected SUITE=SOURCE"),
        ({"kv_data": ["qa="]}, r"--kv-data 'qa='"),
        ({"kv_data": ["needle=x"]}, r"real data is for qa or summarization, not 'needle'"),
        ({"kv_data": ["summary=x"]}, r"did you mean 'summarization'\?"),
        ({"kv_store": "~nosuchuserhere"}, r"--kv-store '~nosuchuserhere': there is no such user"),
        ({"kv_replay": "a\0b"}, r"--kv-replay 'a\\x00b': expected a path without NUL"),
    ],
    ids=str,
)
def test_what_makes_no_sense(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageProblem, match=message):
        settings(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"retention": ["0.001"]},
            r"--retention 0.001 of --kv-context 1024 keeps 1 entries a head",
        ),
        ({"retention": ["0.0001"], "kv_sinks": "0"}, r"keeps 0 entries"),
        ({"kv_context": "9"}, "--kv-context 9 keeps 1 entries a head"),
        ({"kv_sinks": "1020"}, r"cannot hold the 1020 sinks"),
        ({"kv_recents": "1021"}, r"--kv-sinks 4 and --kv-recents 1021 are more than"),
    ],
    ids=str,
)
def test_budgets_must_hold_what_is_protected(raw: dict[str, Any], message: str) -> None:
    made = settings(raw)
    with pytest.raises(UsageProblem, match=message):
        made.check_budgets()


@given(RAW)
@example({"kv_store": "~\udc80"})
@example({"kv_shard": "1/٣"})
def test_any_text_is_either_understood_or_a_usage_problem(raw: dict[str, Any]) -> None:
    try:
        made = settings(raw)
        made.check_budgets()
    except UsageProblem:
        return
    assert made.seeds >= 1
    assert made.items >= 1
    assert made.retentions == tuple(sorted(set(made.retentions)))
    contract = made.contract
    for retention in made.retentions:
        assert budget_of(retention, contract.context) >= max(1, contract.protection.sinks)
    assert 1 <= made.shard[0] <= made.shard[1]
    assert made.store.is_absolute()
