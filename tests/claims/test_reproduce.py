from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from kvharness.claims.reproduce import command
from tests.claims.conftest import CONTRACT, Made, claim

if TYPE_CHECKING:
    from kvharness.claims.evidence import Evidence

DEFAULT: dict[str, Any] = {"model": {"name": "smollm2-135m"}}


def evidence(**settings: Any) -> Evidence:
    return Made(**{**DEFAULT, **settings}).run("snapkv", "0.25").evidence()


def test_default_options_are_left_out() -> None:
    suites = ("needle", "qa", "summarization")
    assert command(claim(suites=suites), evidence()) == (
        "pytest suites --policy=snapkv,random --retention=0.25"
    )


def test_suites_are_selected() -> None:
    given = claim(suites=("qa", "needle"), retentions=("0.1", "1_3"))
    assert command(given, evidence()) == (
        "pytest suites --policy=snapkv,random --retention=0.1,1_3 -k 'test_qa or test_needle'"
    )


def test_harder_suites_are_collected() -> None:
    words = shlex.split(command(claim(suites=("qa-two-hop",)), evidence()))
    assert words[-3:] == ["--kv-hard", "-k", "test_qa_two_hop"]


def test_what_the_evidence_was_measured_with_is_given_again() -> None:
    found = command(
        claim(),
        evidence(
            model={"name": "tiny"},
            contract={**CONTRACT, "context": 400, "question": "seen"},
            seeds=2,
            items=3,
            data={"qa": "my file.jsonl", "summarization": "other.jsonl"},
        ),
    )
    assert shlex.split(found)[4:-2] == [
        "--kv-model=tiny",
        "--kv-seeds=2",
        "--kv-items=3",
        "--kv-context=400",
        "--kv-question=seen",
        "--kv-data=qa=my file.jsonl",
    ]


def test_policies_with_parameters_are_quoted_and_both_retentions_given() -> None:
    given = claim(policy="snapkv(window=16)", baseline_retention="0.4")
    words = shlex.split(command(given, evidence()))
    assert words[2:4] == ["--policy=snapkv(window=16),random", "--retention=0.25,0.4"]


def test_unknown_sizes_are_left_to_the_defaults() -> None:
    made = Made(**DEFAULT).run("snapkv", "0.25")
    del made.settings["seeds"]
    assert "--kv-" not in command(claim(), made.evidence())
