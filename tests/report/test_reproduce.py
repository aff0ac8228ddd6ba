from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.claims import find
from kvharness.claims.plan import Plan
from kvharness.records.packing import PACKED
from kvharness.report import reproduce
from kvharness.report.reproduce import judging, measuring
from tests.claims.conftest import CONTRACT, Made
from tests.claims.conftest import claim as a_claim

if TYPE_CHECKING:
    from kvharness.claims.claim import Claim
    from kvharness.claims.evidence import Evidence

SUITES = Path(__file__).parents[2] / "suites" / "claims.toml"
DEFAULT: dict[str, Any] = {"model": {"name": "smollm2-135m"}}


def evidence(*, given: dict[str, Any] | None = None, **settings: Any) -> Evidence:
    made = Made(**{**DEFAULT, **settings}).run("snapkv", "0.25")
    return made.evidence(**(given or {}))


def claim(**changes: Any) -> Claim:
    """One that is found without naming its file."""
    return a_claim(**{"origin": str(SUITES), **changes})


def test_default_options_are_left_out() -> None:
    suites = ("needle", "qa", "summarization")
    assert measuring(claim(suites=suites), evidence()) == (
        "pytest suites --policy=snapkv,random --retention=0.25"
    )


def test_suites_are_selected() -> None:
    given = claim(suites=("qa", "needle"), retentions=("0.1", "1_3"))
    assert measuring(given, evidence()) == (
        "pytest suites --policy=snapkv,random --retention=0.1,1_3 -k 'test_qa or test_needle'"
    )


def test_harder_suites_are_collected() -> None:
    words = shlex.split(measuring(claim(suites=("qa-two-hop",)), evidence()))
    assert words[-3:] == ["--kv-hard", "-k", "test_qa_two_hop"]


def test_what_the_evidence_was_measured_with_is_given_again() -> None:
    found = measuring(
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


def test_a_suite_that_stands_alone_is_named_by_its_file() -> None:
    alone, both = ("language-modelling",), ("qa", "language-modelling")
    found = measuring(claim(suites=alone), evidence())
    assert found == ("pytest suites/language_modelling.py --policy=snapkv,random --retention=0.25")
    found = measuring(claim(suites=both), evidence())
    assert found.startswith("pytest suites suites/language_modelling.py --policy=")
    assert found.endswith("-k 'test_qa or test_language_modelling'")


def test_policies_with_parameters_are_quoted_and_both_retentions_given() -> None:
    given = claim(policy="snapkv(window=16)", baseline_retention="0.4")
    words = shlex.split(measuring(given, evidence()))
    assert words[2:4] == ["--policy=snapkv(window=16),random", "--retention=0.25,0.4"]


def test_unknown_sizes_are_left_to_the_defaults() -> None:
    made = Made(seeds=1, **DEFAULT).run("snapkv", "0.25")
    assert "--kv-seeds=1" in measuring(claim(), made.evidence())
    assert "--kv-" not in measuring(claim(policy="tova"), made.evidence()), "of which there is none"


@pytest.mark.parametrize("plan", [None, Plan(items=12, drawn=5, seeds={})])
def test_the_store_and_model_of_a_run_are_given_again(plan: Plan | None, tmp_path: Path) -> None:
    for place, stored in (("my store", ["--kv-store=my store"]), (".kvharness", [])):
        options = {"--kv-model": "../tiny"}
        found = evidence(given={"plan": plan, "place": place, "options": options})
        words = shlex.split(measuring(claim(), found))
        assert words[4:] == ["--kv-model=../tiny", *stored, "-k", "test_qa"]
    (tmp_path / f"records{PACKED}").touch()
    replayed = measuring(claim(), evidence(given={"plan": plan, "place": str(tmp_path)}))
    assert "--kv-store" not in replayed, "no run adds to a recording"


def test_how_a_run_computed_is_given_again() -> None:
    given = {
        "--kv-device": "cuda:1",
        "--kv-dtype": "float32",
        "--kv-threads": "4",
        "--kv-generate": "none",
        "--kv-haystack": "my hay.txt",
        "--kv-claims": "strict",
    }
    options = [f"{flag}={value}" for flag, value in given.items()]
    ran = measuring(claim(), evidence(given={"options": given}))
    assert shlex.split(ran)[4:-2] == options
    stored = measuring(claim(), evidence(options={**given, "--kv-later": "x"}))
    assert shlex.split(stored)[4:-2] == options, "as a store's header tells"


def test_the_suites_of_a_wheel_are_named_as_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, found = claim(), evidence()
    monkeypatch.chdir(tmp_path)
    assert measuring(given, found).startswith(f"pytest {SUITES.parent} --policy=")
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "claims.toml").touch()
    monkeypatch.setattr(find, "PACKAGE", tmp_path)
    monkeypatch.setattr(reproduce, "PACKAGE", tmp_path)
    assert measuring(given, found).startswith("pytest --pyargs kvharness.suites --policy=")


def test_a_claim_is_judged_again_by_its_id() -> None:
    found = evidence(given={"place": "my store"})
    assert judging(claim(), found) == "kvharness claims 'my store' --claim mine"
    assert judging(claim(), evidence()) == "kvharness claims STORE --claim mine"


def test_a_file_of_the_users_is_named_again() -> None:
    mine = claim(origin="my/claims.toml")
    found = evidence(given={"place": "s"})
    assert judging(mine, found) == "kvharness claims s --file my/claims.toml --claim mine"
    assert " --kv-claims-file=my/claims.toml " in measuring(mine, found)
