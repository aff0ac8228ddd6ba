from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.cell import Cell, Group
from kvharness.claims.claim import Column
from kvharness.claims.plan import Wanted, columns, halved, plan_of, selected, wanted
from kvharness.contract import Contract, Protection
from tests.claims.conftest import claim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvharness.claims.claim import Claim

CLAIMS = [
    claim(id="control", policy="oracle"),
    claim(id="mine", policy="snapkv(window=16)", control="control"),
    claim(id="about-another", policy="h2o", baseline="snapkv(window=16)"),
]


def ids(claims: Iterable[Claim]) -> list[str]:
    return [each.id for each in claims]


def asked(claims: Iterable[Claim], *known: str, **changes: Any) -> Wanted:
    given = {"contract": Contract(), "widen": True, **changes}
    return wanted(claims, installed=known, **given)


def text(found: Wanted) -> tuple[list[str], dict[str, list[str]]]:
    retentions = {slug: [str(each) for each in r] for slug, r in found.retentions.items()}
    return [str(spec) for spec in found.policies], retentions


def test_without_a_policy_every_claim_is_selected() -> None:
    assert selected(CLAIMS, None) == CLAIMS


def test_a_claim_on_request_is_selected_where_it_or_everything_is_named() -> None:
    costly = claim(id="costly", policy="tova", on_request=True)
    claims = [*CLAIMS, costly]
    assert selected(claims, None) == CLAIMS
    assert selected(claims, None, on_request=True) == claims
    assert selected(claims, ["tova"]) == [costly]


def test_claims_of_a_policy_come_with_their_controls() -> None:
    assert ids(selected(CLAIMS, ["snapkv+window16"])) == ["control", "mine"]
    assert ids(selected(CLAIMS, ["h2o"])) == ["about-another"]
    assert ids(selected(CLAIMS, ["oracle"])) == ["control"]


@pytest.mark.parametrize("slugs", [["snapkv"], ["random"], []])
def test_a_claim_is_about_its_policy_not_its_baseline(slugs: list[str]) -> None:
    assert selected(CLAIMS, slugs) == []


@pytest.mark.parametrize(
    ("slugs", "expected"),
    [(None, set()), (["h2o", "tova"], set()), (["h2o"], {"chance"}), (["snapkv"], set())],
)
def test_a_family_is_halved_where_some_of_it_is_not_selected(
    slugs: list[str] | None, expected: set[str]
) -> None:
    claims = [claim(id=name, policy=name, family="chance") for name in ("h2o", "tova")]
    claims.append(claim(id="alone", policy="snapkv"))
    assert halved(claims, selected(claims, slugs), installed=None) == expected
    known = ["h2o", "tova", "snapkv", "random"]
    assert halved(claims, selected(claims, slugs), installed=known) == expected


@pytest.mark.parametrize("known", [["h2o", "random"], ["h2o", "tova"]])
def test_claims_about_what_is_not_installed_halve_no_family(known: list[str]) -> None:
    claims = [claim(id=name, policy=name, family="chance") for name in ("h2o", "tova")]
    assert halved(claims, selected(claims, ["h2o"]), installed=known) == set()


def test_claims_need_policy_and_baseline_at_their_retentions() -> None:
    mine = claim(retentions=("0.15", "0.25"), baseline="streaming-llm", baseline_retention="0.4")
    policies, retentions = text(asked([mine], "snapkv", "streaming-llm"))
    assert policies == ["snapkv", "streaming-llm"]
    assert retentions == {"snapkv": ["3/20", "1/4"], "streaming-llm": ["2/5"]}


def test_no_claim_widens_the_retentions_that_a_user_named() -> None:
    policies, retentions = text(asked([claim()], "snapkv", "random", widen=False))
    assert policies == ["snapkv", "random"]
    assert retentions == {}


def test_fixed_anchors_have_no_retention_to_run() -> None:
    policies, retentions = text(asked([claim(baseline="full")], "snapkv", "full"))
    assert policies == ["snapkv", "full"]
    assert retentions == {"snapkv": ["1/4"]}


@pytest.mark.parametrize("known", [("random",), ("snapkv",), ("ada", "random")])
def test_nothing_is_run_for_claims_of_what_is_not_installed(known: tuple[str, ...]) -> None:
    assert asked([claim(policy="ada(snapkv)")], *known) == Wanted(policies=(), retentions={})


def test_a_retention_that_cannot_hold_the_sinks_is_not_added() -> None:
    mine = claim(retentions=("0.01", "0.05"))
    small = Contract(context=100, protection=Protection(sinks=4, recents=0))
    assert text(asked([mine], "snapkv", "random", contract=small))[1] == {
        "snapkv": ["1/20"],
        "random": ["1/20"],
    }


def test_each_policy_is_needed_once() -> None:
    both = [claim(), claim(id="b", policy="h2o", retentions=("0.1",))]
    policies, retentions = text(asked(both, "snapkv", "h2o", "random"))
    assert policies == ["snapkv", "random", "h2o"]
    assert retentions["random"] == ["1/10", "1/4"]


def test_columns_are_those_of_all_parts_once() -> None:
    mine = claim(suites=("qa", "needle"), retentions=("0.1", "0.5"), baseline="full")
    assert list(map(str, columns(mine))) == ["snapkv-r0.1", "full", "snapkv-r0.5"]


def test_the_plan_is_what_was_selected() -> None:
    def cell(seed: int, policy: str = "snapkv", retention: Fraction | None = None) -> Cell:
        return Cell(suite="qa", policy=policy, retention=retention, seed=seed)

    cells = {
        Group("qa", 0): [cell(0, retention=Fraction(1, 3)), cell(0, "full")],
        Group("qa", 3): [cell(3, "full")],
    }
    plan = plan_of(cells, items=7, seeds=5)
    assert (plan.items, plan.drawn) == (7, 5)
    assert plan.of("qa", Column("snapkv", "1_3")) == {0}
    assert plan.of("qa", Column("full", None)) == {0, 3}
    assert plan.of("needle", Column("full", None)) == frozenset()
