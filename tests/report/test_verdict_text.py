from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.claims.judge import judge
from kvharness.items.suites import SUITES
from kvharness.report.verdict_text import explain, headline, interval_text, tally, verdicts
from kvharness.statistics.estimate import Interval
from kvharness.statistics.region import Kind, Verdict
from tests.claims.conftest import Made, claim, pair, spread

if TYPE_CHECKING:
    from kvharness.claims.claim import Claim
    from kvharness.claims.judgement import Judgement

SUPPORTED, REFUTED = Verdict.SUPPORTED, Verdict.REFUTED


def one(given: Claim, made: Made) -> Judgement:
    (found,) = judge([given], made.evidence())
    return found


def screen(given: Claim, made: Made) -> str:
    return "\n".join(explain(one(given, made), made.evidence(place="my store")))


def table(*claims: Claim, made: Made) -> list[str]:
    return list(verdicts(judge(claims, made.evidence())))


def two(first: float, second: float) -> Made:
    made = pair(spread(mean=first, sd=0.5))
    made.run("snapkv", "0.5", nll=-spread(mean=second, sd=0.5)).run("random", "0.5", nll=0)
    return made


# -- the table ------------------------------------------------------------------------------------


def test_a_row_tells_verdict_expectation_and_the_part_that_decides() -> None:
    mine = claim(retentions=("0.25", "0.5"), expect={"tiny": SUPPORTED})
    for means, row in {
        (1.0, 0.5): "mine supported supported +0.500 [+0.392, +0.608] qa at 0.5, n=60",
        (1.0, -0.5): "mine refuted supported (!) -0.500 [-0.608, -0.392] qa at 0.5, n=60",
        (0.01, 1.0): "mine inconclusive supported (!) +0.010 [-0.098, +0.118] qa at 0.25, n=60",
    }.items():
        found = table(mine, made=two(*means))
        assert " ".join(found[2].split()) == row


def test_of_a_refuted_claim_the_part_that_refutes_it_is_shown() -> None:
    # The other part reaches out farther, but is undecided.
    made = two(-0.3, 0.0)
    made.records = [
        replace(each, metrics={"nll": each.metrics["nll"] * (9 if each.retention == "0.5" else 1)})
        for each in made.records
    ]
    assert "qa at 0.25, n=60" in table(claim(retentions=("0.25", "0.5")), made=made)[2]


def test_without_numbers_the_reason_is_shown() -> None:
    made = pair(spread(mean=9.0)).drop(policy="snapkv", seed=0)
    assert " ".join(table(claim(), made=made)[2].split()) == (
        "mine inconclusive - 1 of 10 cells missing"
    )
    sure = pair(spread(sd=0.01))
    mine = claim(kind=Kind.NOT_BETTER, margin=0.1, control="sees")
    found = table(mine, claim(id="sees", policy="oracle"), made=sure)
    assert found[2].endswith("its control sees is not evaluated")


def test_the_ending_counts_verdicts_and_surprises() -> None:
    made = pair(spread(mean=9.0))
    claims = [
        claim(id="a", expect={"tiny": SUPPORTED}),
        claim(id="b", expect={"tiny": REFUTED}),
        claim(id="c", policy="sip"),
    ]
    assert tally(judge(claims, made.evidence())) == (
        "claims: 2 supported, 1 not evaluated; 1 not as expected"
    )
    assert tally([]) == "claims: none"


def test_claims_that_are_not_evaluated_share_a_line_for_each_reason() -> None:
    claims = [claim(id=name, policy="sip") for name in ("a", "b")]
    made = pair(0.0)
    assert table(*claims, claim(id="c", policy="lkv"), made=made) == [
        "not evaluated: there are no records of sip: a, b",
        "not evaluated: there are no records of lkv: c",
        "claims: 3 not evaluated",
    ]


def test_where_no_expectation_applies_the_table_says_why() -> None:
    claims = [claim(id=name, settings={"context": 64}) for name in ("a", "b")]
    found = table(*claims, made=pair(spread(mean=9.0)))
    assert found[-2:] == [
        "no expectation applies: established for context 64 (here 1024): a, b",
        "claims: 2 supported",
    ]


# -- one screen -----------------------------------------------------------------------------------


def test_a_surprise_is_explained_to_a_stranger() -> None:
    mine = claim(
        kind=Kind.NOT_WORSE,
        margin=0.25,
        expect={"tiny": SUPPORTED},
        source="a paper",
        why="a quarter is\nenough",
    )
    again = "kvharness claims 'my store' --file claims.toml --claim mine"
    lines = screen(mine, pair(spread(mean=-1.0))).splitlines()
    assert [" ".join(line.split()) for line in lines if "---" not in line] == [
        "REFUTED, expected supported: claim mine (tiny)",
        "snapkv is not worse than random by more than 0.25, in nll",
        (
            "below: snapkv minus random in nll (nats a token, sign changed), more is better; "
            "90 % intervals;"
        ),
        "margin 0.25",
        "part difference items by itself",
        "qa at 0.25 -1.000 [-1.216, -0.784] 60 refuted",
        "stands in claims.toml; source: a paper",
        "why this margin: a quarter is enough",
        f"judge again, without a model: {again}",
        (
            "measure, or what is missing: pytest suites --policy=snapkv,random --retention=0.25 "
            "--kv-model=tiny '--kv-store=my store' --kv-claims-file=claims.toml -k test_qa"
        ),
        f"if the new verdict is right: {again} --accept",
    ]


def test_what_recovered_means_is_told() -> None:
    made = Made().anchors().recovers("snapkv", "0.25", 0.5).recovers("random", "0.25", 0.5)
    found = " ".join(screen(claim(metric="recovered"), made).split())
    assert "which is 0 with sinks and recents only and 1 with the full cache" in found


def test_an_undecided_part_says_how_many_items_it_needs() -> None:
    found = screen(claim(expect={"tiny": SUPPORTED}), pair(spread(mean=0.1)))
    assert "INCONCLUSIVE, expected supported" in found
    assert "60 inconclusive about 620 would settle it" in " ".join(found.split())
    assert "undecided: qa at 0.25; about 620 items would settle it" in found
    assert "--accept" not in found, "more items are needed, not another expectation"


def test_what_is_missing_is_told_part_by_part() -> None:
    made = pair(spread(mean=9.0)).drop(policy="snapkv", seed=0)
    found = screen(claim(), made)
    assert "  1 of 10 cells missing\n" in found
    assert "qa at 0.25 - - inconclusive 1 of 10 cells missing" in " ".join(found.split())


def test_a_claim_that_was_not_evaluated_has_no_table() -> None:
    found = screen(claim(policy="sip"), pair(0.0))
    assert "NOT EVALUATED: claim mine (tiny)\n" in found
    assert "there are no records of sip" in found
    assert "by itself" not in found


def test_every_claim_fits_on_one_screen() -> None:
    retentions = tuple(f"0.{number}" for number in range(11, 20))
    made = Made()
    for suite in SUITES:
        for number, retention in enumerate(retentions):
            made.run("snapkv", retention, nll=-spread(mean=number - 1), suite=suite)
            made.run("random", retention, nll=0, suite=suite)
    made.drop(policy="snapkv", seed=0, items=[3])
    words: dict[str, Any] = {"source": "s " * 80, "why": "w " * 80}
    mine = claim(suites=tuple(SUITES), retentions=retentions, **words)
    assert len(screen(mine, made).splitlines()) <= 40


def test_of_many_parts_those_that_decide_are_shown() -> None:
    retentions = tuple(f"0.{number}" for number in range(11, 41))
    made = Made(seeds=2)
    for number, retention in enumerate(retentions):
        mean = -9.0 if number == 29 else number / 3 + 1
        made.run("snapkv", retention, nll=-spread(mean=mean, units=24))
        made.run("random", retention, nll=0)
    found = screen(claim(retentions=retentions), made)
    assert "qa at 0.40" in found, "the one that refutes"
    assert "qa at 0.11" in found
    assert "qa at 0.39" not in found
    assert "and 10 parts that matter less" in found


def test_the_headline_is_a_line() -> None:
    made = pair(spread(mean=9.0))
    assert headline(one(claim(expect={"tiny": REFUTED}), made)) == "SUPPORTED, expected refuted"
    assert headline(one(claim(), made)) == "SUPPORTED"


@pytest.mark.parametrize("mean", [9.0, 0.0, -9.0])
def test_words_are_text_whatever_the_verdict(mean: float) -> None:
    for kind in Kind:
        assert screen(claim(kind=kind, margin=0.1), pair(mean))


def test_intervals_are_written_with_their_sign() -> None:
    assert interval_text(Interval(mean=0.5, low=-0.25, high=1.25)) == "+0.500 [-0.250, +1.250]"
    assert interval_text(Interval(mean=-0.0, low=-0.0, high=0.0)) == "+0.000 [+0.000, +0.000]"
    bytes_saved = Interval(mean=153600.0, low=-math.inf, high=1e6)
    assert interval_text(bytes_saved) == "+153,600 [-inf, +1,000,000]"
    assert interval_text(None) == "-"
