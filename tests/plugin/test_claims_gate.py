from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.claims.claim import Column
from kvharness.claims.find import all_claims
from kvharness.claims.plan import Plan, Wanted
from kvharness.discovery import presses
from kvharness.discovery.registry import installed
from kvharness.errors import ClaimProblem
from kvharness.plugin.claims_gate import Gate, status
from kvharness.settings.table import ClaimsMode
from kvharness.statistics.region import Verdict
from tests.claims.conftest import Made, claim, pair, spread
from tests.run.test_settings import settings

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.claims.claim import Claim

STRICT, REPORT = ClaimsMode.STRICT, ClaimsMode.REPORT
KNOWN = ("full", "floor", "oracle", "snapkv", "random")


def gate(*claims: Claim, mode: ClaimsMode = STRICT) -> Gate:
    wanted = Wanted(policies=(), retentions={"snapkv": (Fraction(1, 4),)})
    return Gate(mode=mode, claims=claims, wanted=wanted, installed=frozenset(KNOWN))


def reports(given: Claim, made: Made, mode: ClaimsMode = STRICT) -> list[pytest.TestReport]:
    found, evidence = gate(given, mode=mode), made.evidence()
    return list(found.reports(found.judge(evidence), evidence))


# -- which claims ---------------------------------------------------------------------------------


def ids(**raw: Any) -> list[str]:
    return [each.id for each in Gate.of(settings(raw), KNOWN).claims]


def test_without_policies_all_claims_are_judged_but_those_on_request() -> None:
    assert ids() == [each.id for each in all_claims() if not each.on_request]
    assert ids(policy=["all"]) == [each.id for each in all_claims()]


def test_claims_of_the_named_policies_are_judged_not_those_of_the_anchors() -> None:
    assert ids(policy=["snapkv"]) == ["snapkv-better-than-random"]
    assert ids(policy=["sip, random"]) == [
        "oracle-better-than-random",
        "oracle-better-than-random-in-language-modelling",
        "sip-better-than-untrained",
        "sip-equals-random-at-0.75",
        "sip-not-better-than-random",
        "sip-not-better-than-random-in-language-modelling",
    ]
    assert ids(policy=["mine"]) == []


def test_off_reads_no_claims(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[")
    raw = {"kv_claims": "off", "kv_claims_file": [str(tmp_path / "bad.toml")]}
    assert ids(**raw) == []
    found = Gate.of(settings(raw), KNOWN)
    assert found.wanted == Wanted(policies=(), retentions={})
    assert found.retentions("snapkv", [Fraction(1, 2)]) == [Fraction(1, 2)]


def test_what_claims_need_is_added_to_what_was_asked_for() -> None:
    found = Gate.of(settings({"policy": ["snapkv"]}), KNOWN)
    assert [str(spec) for spec in found.wanted.policies] == ["snapkv", "random"]
    assert found.retentions("random", [Fraction(1, 3)]) == [
        Fraction(1, 10),
        Fraction(1, 4),
        Fraction(1, 3),
        Fraction(1, 2),
        Fraction(3, 4),
    ]
    named = Gate.of(settings({"policy": ["snapkv"], "retention": ["0.5"]}), KNOWN)
    assert named.retentions("random", [Fraction(1, 2)]) == [Fraction(1, 2)]


FAMILY = """
[[claim]]
id = "{0}-better"
kind = "better"
policy = "{0}"
baseline = "random"
suites = ["qa"]
retention = ["0.25"]
metric = "nll"
family = "mine"
"""


@pytest.mark.parametrize(("other", "expected"), [("random2", set()), ("h2o", {"mine"})])
def test_only_claims_of_installed_policies_are_missed_from_a_family(
    tmp_path: Path, other: str, expected: set[str]
) -> None:
    file = tmp_path / "claims.toml"
    file.write_text(FAMILY.format("snapkv") + FAMILY.format(other))
    raw = {"policy": ["snapkv"], "kv_claims_file": [str(file)]}
    assert Gate.of(settings(raw), (*KNOWN, "h2o")).halved - {"chance"} == expected
    replayed = Gate.of(settings({**raw, "kv_replay": str(tmp_path)}), None)
    assert "mine" in replayed.halved, "nothing is run, so a store may well have its records"


@pytest.mark.parametrize("version", ["0.5.5", None])
def test_a_claim_about_presses_needs_kvpress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    monkeypatch.setattr(presses, "peer_version", lambda: version)
    press = "kvpress:AdaKVPress(press=KnormPress())"
    file = tmp_path / "claims.toml"
    file.write_text(FAMILY.format("snapkv").replace('policy = "snapkv"', f'policy = "{press}"'))
    found = Gate.of(settings({"policy": [press], "kv_claims_file": [str(file)]}), KNOWN)
    assert [str(spec) for spec in found.wanted.policies] == ([press, "random"] if version else [])
    (told,) = found.judge(pair(spread(mean=0.4)).evidence())
    assert ("kvpress is not installed" in told.reason) is (version is None), told.reason


@pytest.mark.parametrize(
    ("policy", "told"), [("ada", "ada: it wraps another policy"), ("none-such", "")]
)
def test_claims_are_about_policies_that_can_be_named(
    tmp_path: Path, policy: str, told: str
) -> None:
    file = tmp_path / "claims.toml"
    file.write_text(FAMILY.format("snapkv").replace('policy = "snapkv"', f'policy = "{policy}"'))
    known = installed()
    found = Gate.of(settings({"policy": [policy], "kv_claims_file": [str(file)]}), known)
    (mine,) = (each for each in found.claims if each.origin == str(file))
    if not told:
        found.check(known)
        return
    with pytest.raises(ClaimProblem) as problem:
        found.check(known)
    assert str(problem.value).startswith(f"{file}: claim {mine.id!r}: {told}")


def test_a_replay_needs_nothing_installed(tmp_path: Path) -> None:
    found = Gate.of(settings({"policy": ["snapkv"], "kv_replay": str(tmp_path)}), None)
    assert [each.id for each in found.claims] == ["snapkv-better-than-random"]
    assert found.installed is None
    assert [spec.slug for spec in found.wanted.policies] == ["snapkv", "random"], "if it is there"
    (absent,) = found.judge(Made().run("h2o", "0.25").evidence())
    assert absent.reason == "there are no records of snapkv and random"


# -- reports --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "expected", "strict", "report"),
    [
        (9.0, Verdict.SUPPORTED, ("passed", ".", "SUPPORTED"), ("passed", ".", "SUPPORTED")),
        (9.0, Verdict.REFUTED, None, ("surprising", "!", "SUPPORTED")),
        (9.0, None, ("passed", ".", "SUPPORTED"), ("passed", ".", "SUPPORTED")),
        (-9.0, None, ("passed", ".", "REFUTED"), ("passed", ".", "REFUTED")),
        (0.0, Verdict.SUPPORTED, None, ("inconclusive", "?", "INCONCLUSIVE")),
        (
            0.0,
            Verdict.INCONCLUSIVE,
            ("passed", ".", "INCONCLUSIVE"),
            ("passed", ".", "INCONCLUSIVE"),
        ),
        (9.0, Verdict.INCONCLUSIVE, None, ("surprising", "!", "SUPPORTED")),
        (0.0, None, ("inconclusive", "?", "INCONCLUSIVE"), ("inconclusive", "?", "INCONCLUSIVE")),
    ],
)
def test_verdicts_become_outcomes_of_tests(
    mean: float,
    expected: Verdict | None,
    strict: tuple[str, str, str] | None,
    report: tuple[str, str, str],
) -> None:
    given = claim(expect={"tiny": expected} if expected else {})
    for mode, shown in ((STRICT, strict), (REPORT, report)):
        called, ended = reports(given, pair(spread(mean=mean)), mode)
        assert called.nodeid == "claims::mine"
        assert (called.when, ended.when) == ("call", "teardown")
        assert called.failed is (shown is None)
        assert ended.passed
        # None: as pytest shows any failed test.
        found = status(called)
        assert found == (shown and (*shown[:2], (shown[2], found[2][1] if found else {})))
        assert status(ended) is None


def test_what_was_not_evaluated_is_skipped() -> None:
    called, _ = reports(claim(policy="sip", expect={"tiny": Verdict.SUPPORTED}), pair(0.0))
    assert called.skipped
    assert called.longrepr == ("claims.toml", 0, "not evaluated: sip is not installed")
    found = status(called)
    assert found is not None
    assert found[:2] == ("skipped", "s")


def test_a_failure_is_explained_in_full_and_in_a_line() -> None:
    given = claim(expect={"tiny": Verdict.REFUTED})
    called, _ = reports(given, pair(spread(mean=9.0)))
    assert str(called.longrepr).startswith("SUPPORTED, expected refuted: claim mine (tiny)\n")
    assert called.longrepr.reprcrash.message == "SUPPORTED, expected refuted"  # type: ignore[union-attr]
    assert called.sections == []
    passed, _ = reports(claim(), pair(spread(mean=9.0)))
    ((title, words),) = passed.sections
    assert title == "claim"
    assert words.startswith("SUPPORTED: claim mine (tiny)\n")


def test_what_reports_carry_is_builtin() -> None:
    for report in reports(claim(), pair(spread(mean=9.0))):
        assert report.user_properties == [
            ("kvharness-claim", "mine"),
            ("kvharness-verdict", "supported"),
            ("kvharness-outcome", "noted"),
        ]


def test_other_tests_are_shown_as_ever() -> None:
    other = pytest.TestReport("a", ("a", 0, "a"), {}, "passed", None, "call")
    assert status(other) is None


# -- the outlook ----------------------------------------------------------------------------------


def test_the_outlook_counts_the_claims_that_are_planned() -> None:
    seeds = dict.fromkeys(
        [("qa", Column(policy, "0.25")) for policy in ("snapkv", "random")], frozenset(range(5))
    )
    plan = Plan(items=12, drawn=5, seeds=seeds)
    one, other = claim(), claim(id="other", policy="h2o")
    title, *_ = gate(one, other).outlook(plan, None)
    assert title == "kvharness: 1 claim will be judged (--kv-claims=strict)"
    title, *_ = gate(one, claim(id="b"), mode=REPORT).outlook(plan, None)
    assert title == "kvharness: 2 claims will be judged (--kv-claims=report)"
    assert gate(other).outlook(plan, None) == []
