from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomlkit
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kvharness.claims.claim import Unit
from kvharness.claims.file import KEYS, read_claims
from kvharness.errors import ClaimProblem
from kvharness.items.suites import SUITES
from kvharness.statistics.method import Method
from kvharness.statistics.region import Kind, Verdict

if TYPE_CHECKING:
    from kvharness.claims.claim import Claim

GOOD: dict[str, Any] = {
    "id": "mine",
    "kind": "better",
    "policy": "snapkv(window=16)",
    "baseline": "random",
    "suites": ["qa", "needle"],
    "retention": ["0.1", "1/4"],
    "metric": "recovered",
}
EVERY: dict[str, Any] = {
    **GOOD,
    "kind": "not_better",
    "margin": 0.1,
    "unit": "seed",
    "method": "bca",
    "baseline_retention": "0.40",
    "control": "sees",
    "family": "mine",
    "settings": {
        "context": 1024,
        "sinks": 0,
        "recents": 16,
        "question": "seen",
        "evict": "prefill",
    },
    "expect": {"tiny": "refuted", "org/tiny-3.1": "inconclusive"},
    "source": "a paper",
    "why": "a reason",
    "on_request": True,
}


def write(path: Path, *claims: object) -> Path:
    path.write_text(tomlkit.dumps({"claim": list(claims)}))
    return path


def problem(path: Path, **changes: Any) -> str:
    """The message for a claim with these keys changed, or without those that are None."""
    claim = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(ClaimProblem) as told:
        read_claims(write(path, claim))
    return str(told.value)


def test_a_claim_with_the_keys_that_it_needs(claims_file: Path) -> None:
    (found,) = read_claims(write(claims_file, GOOD))
    assert (found.id, found.kind, found.policy) == ("mine", Kind.BETTER, "snapkv(window=16)")
    assert found.suites == ("qa", "needle")
    assert found.retentions == ("0.1", "0.25"), "as everywhere else"
    assert (found.margin, found.unit, found.method) == (0.0, Unit.ITEM, Method.AUTO)
    assert (found.baseline_retention, found.control, found.family) == (None, None, None)
    assert (found.settings, found.expect, found.source, found.why) == ({}, {}, "", "")
    assert not found.on_request
    assert found.origin == str(claims_file)


def test_a_claim_with_every_key(claims_file: Path) -> None:
    assert set(EVERY) == set(KEYS)
    (found,) = read_claims(write(claims_file, EVERY))
    assert (found.margin, found.unit, found.method) == (0.1, Unit.SEED, Method.BCA)
    assert (found.baseline_retention, found.control, found.family) == ("0.4", "sees", "mine")
    assert found.settings == EVERY["settings"]
    assert found.expect == {"tiny": Verdict.REFUTED, "org/tiny-3.1": Verdict.INCONCLUSIVE}
    assert (found.source, found.why) == ("a paper", "a reason")
    assert found.on_request


def test_a_press_stands_only_in_a_press(claims_file: Path) -> None:
    around = "kvpress:AdaKVPress(press=KnormPress())"
    (found,) = read_claims(write(claims_file, {**GOOD, "policy": around}))
    assert found.policy == around
    told = problem(claims_file, baseline="ada(kvpress:KnormPress())")
    assert "baseline" in told
    assert "'kvpress:AdaKVPress(press=KnormPress())'" in told, "what to write instead"


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("all", "expected one policy, not all of them"),
        ("h2o(16)", "16 is no policy; a parameter is written with its name, h2o(NAME=16)"),
    ],
)
def test_what_no_run_takes_for_one_policy_is_refused(
    claims_file: Path, policy: str, told: str
) -> None:
    assert told in problem(claims_file, policy=policy)


def test_claims_stay_in_the_order_of_the_file(claims_file: Path) -> None:
    names = ["b", "a", "c"]
    found = read_claims(write(claims_file, *({**GOOD, "id": name} for name in names)))
    assert [claim.id for claim in found] == names


def test_a_file_may_hold_no_claim(claims_file: Path) -> None:
    claims_file.write_text("# none yet\n")
    assert read_claims(claims_file) == []


@pytest.mark.parametrize(
    "key", ["id", "kind", "policy", "baseline", "suites", "retention", "metric"]
)
def test_what_is_missing_is_named(claims_file: Path, key: str) -> None:
    name = "claim 1" if key == "id" else "claim 'mine'"
    told = problem(claims_file, **{key: None})
    assert told.startswith(f"{claims_file}: {name}: {key} is missing: expected ")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"kind": "bettr"}, ["kind 'bettr'", "not_worse, equivalent", "mean 'better'"]),
        ({"kind": 3}, ["kind 3: expected text in quotes"]),
        ({"id": "Mine!"}, ["id 'Mine!': expected lower-case letters"]),
        ({"id": ""}, ["id ''"]),
        ({"polcy": "x"}, ["'polcy' is no key of a claim", "mean 'policy'"]),
        ({"policy": "a,b"}, ["policy 'a,b': expected one policy"]),
        ({"policy": "snapkv("}, ["policy 'snapkv('"]),
        ({"baseline": ""}, ["baseline ''"]),
        ({"baseline": "snapkv( window = 16 )"}, ["baseline", "is the policy itself"]),
        ({"suites": []}, ["suites []: expected a list of texts"]),
        ({"suites": "qa"}, ["suites 'qa': expected a list of texts"]),
        ({"suites": ["needel"]}, ["suites 'needel'", ", ".join(SUITES), "mean 'needle'"]),
        ({"suites": ["qa", "qa"]}, ["suites", "expected each of them once"]),
        ({"retention": [0.1]}, ['retention [0.1]: expected a list of texts such as ["0.25"]']),
        ({"retention": ["1.5"]}, ["retention '1.5'", "expected a fraction in (0, 1]"]),
        ({"retention": ["0.5", "1/2"]}, ["retention", "expected each of them once"]),
        ({"baseline_retention": "0"}, ["baseline_retention '0': expected a fraction"]),
        ({"metric": "recoverd"}, ["metric 'recoverd'", "evidence_kept", "mean 'recovered'"]),
        ({"margin": "0.1"}, ["margin '0.1': expected a number from 0"]),
        ({"margin": -0.1}, ["margin -0.1"]),
        ({"unit": "items"}, ["unit 'items': expected one of item, seed; did you mean 'item'"]),
        ({"method": "bcaa"}, ["method 'bcaa': expected one of auto, t, bca, exact"]),
        ({"settings": {"contxt": 1}}, ["settings 'contxt'", "mean 'context'"]),
        ({"settings": {"context": "1024"}}, ["settings context = '1024'", "a whole number"]),
        ({"settings": {"context": True}}, ["settings context = True", "a whole number"]),
        ({"settings": {"sinks": -1}}, ["settings sinks = -1", "a whole number"]),
        ({"settings": {"question": "unsen"}}, ["question = 'unsen'", "mean 'unseen'"]),
        ({"settings": {"evict": "never"}}, ["evict = 'never': expected one of prefill, decode"]),
        ({"settings": 1}, ["settings 1: expected a table in braces"]),
        ({"expect": {"tiny": "suported"}}, ["expect.'tiny' 'suported'", "mean 'supported'"]),
        ({"expect": {"tiny": "not evaluated"}}, ["supported, refuted, inconclusive"]),
        ({"expect": {"tiny-3": {"1": "refuted"}}}, ["a name with a dot stands in quotes"]),
        ({"expect": "refuted"}, ["expect 'refuted': expected a table in braces"]),
        ({"kind": "not_worse"}, ["margin 0: not_worse needs a margin above 0"]),
        ({"kind": "equivalent", "control": "c"}, ["margin 0: equivalent needs a margin"]),
        ({"kind": "not_better"}, ["control is missing", "such as oracle-better-than-random"]),
        ({"control": "sees"}, ["control 'sees': better needs none"]),
        ({"policy": "full", "baseline": "full"}, ["baseline 'full' is the policy itself"]),
        (
            {"policy": "random", "baseline_retention": "1/10"},
            ["baseline 'random' is the policy itself"],
        ),
    ],
)
def test_errors_name_file_claim_key_and_what_is_allowed(
    claims_file: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    told = problem(claims_file, **changes)
    assert told.startswith(f"{claims_file}: claim ")
    assert "id" in changes or "claim 'mine'" in told
    for part in parts:
        assert part in told


def test_a_policy_may_be_compared_with_itself_at_another_retention(claims_file: Path) -> None:
    given = {**GOOD, "baseline": GOOD["policy"], "baseline_retention": "0.5"}
    (found,) = read_claims(write(claims_file, given))
    assert found.baseline_retention == "0.5"


def test_two_claims_of_one_id(claims_file: Path) -> None:
    other = {**GOOD, "id": "other"}
    with pytest.raises(ClaimProblem) as told:
        read_claims(write(claims_file, GOOD, other, GOOD))
    assert str(told.value) == (
        f"two claims have the id 'mine': [[claim]] 1 of {claims_file} and [[claim]] 3 of "
        f"{claims_file}; rename one"
    )


def test_a_byte_order_mark_is_no_mistake(claims_file: Path) -> None:
    write(claims_file, GOOD)
    plain = read_claims(claims_file)
    claims_file.write_bytes(b"\xef\xbb\xbf" + claims_file.read_bytes())
    assert read_claims(claims_file) == plain


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[[claim]\n", "is not TOML: .* line 1"),
        (b"[[claim]]\nid = 'a'\nid = 'b'\n", "is not TOML: .* line 3"),
        (b"id = '\xff'\n", "is not TOML: 'utf-8' codec"),
        (b"x = " + b"9" * 5000, "is not TOML: "),
        (b"x = " + b"[" * 3000, "is not TOML: "),
        (b"[claim]\nid = 'a'\n", "a claim that is no .*: expected .* tables and nothing else"),
        (b"claim = 3\n", "a claim that is no"),
        (b"claim = [3]\n", r"claim 1 is 3: expected a \[\[claim\]\] table"),
        (b"[[claims]]\nid = 'a'\n", "'claims': expected"),
        (b"[[claim]]\nid = 'a'\nmargin = 0x" + b"f" * 5000, "thousands of digits|is missing"),
        (b"# " + b"x" * 2**20, "is too large: .* at most 1 MiB"),
    ],
)
def test_what_is_no_claims_file(claims_file: Path, content: bytes, told: str) -> None:
    claims_file.write_bytes(content)
    with pytest.raises(ClaimProblem, match=f"^{re.escape(str(claims_file))}: .*{told}") as error:
        read_claims(claims_file)
    assert len(str(error.value)) < 600


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ClaimProblem, match="cannot be read: Is a directory"):
        read_claims(tmp_path)
    with pytest.raises(ClaimProblem, match=r"none\.toml: cannot be read: No such file"):
        read_claims(tmp_path / "none.toml")


def test_a_file_without_an_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ClaimProblem, match="is too large"):
        read_claims(Path("/dev/zero"))


def claims_or_problem(path: Path) -> list[Claim] | str:
    """Nothing else may come of reading a file; a problem names it."""
    try:
        return read_claims(path)
    except ClaimProblem as problem:
        told = str(problem)
    assert told.startswith(str(path))
    return told


LEAVES = (
    st.text(max_size=9)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.sampled_from(["qa", "0.5", "better", "item", "supported", "tiny", "1/0", "a(b=1)"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from([*KEYS, "odd"]), VALUES | st.none(), max_size=4))
def test_whatever_a_claim_holds_it_is_a_claim_or_a_problem(
    claims_file: Path, changes: dict[str, Any]
) -> None:
    given = {**EVERY, **changes}
    text = tomlkit.dumps({"claim": [{k: v for k, v in given.items() if v is not None}]})
    claims_file.write_text(text, encoding="utf-8")
    found = claims_or_problem(claims_file)
    if isinstance(found, str):
        assert "\n" not in found
    else:
        assert found[0].comparisons()
        assert found[0].statement()
        assert found[0].region.low < found[0].region.high


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40) | st.text(max_size=60).map(str.encode))
@example(content=b"[[claim]]\n")
@example(content=b"claim = [[]]\n")
@example(content=b"[[claim]]\nid.x = 1\n")
@example(content=b"[[claim]]\n" + b"x." * 5000 + b"y = 1\n")
def test_whatever_a_file_holds_it_is_claims_or_a_problem(claims_file: Path, content: bytes) -> None:
    claims_file.write_bytes(content)
    claims_or_problem(claims_file)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_claims_or_a_problem(claims_file: Path, data: st.DataObject) -> None:
    text = tomlkit.dumps({"claim": [EVERY]})
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 30)))
    other = data.draw(st.text(alphabet="[]{}=\"'.,\n #x0", max_size=4))
    claims_file.write_text(text[:start] + other + text[end:], encoding="utf-8")
    claims_or_problem(claims_file)
