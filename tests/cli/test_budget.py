from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import pytest

from kvharness.cli.main import main
from tests.claims.conftest import Made, spread

if TYPE_CHECKING:
    from pathlib import Path


class Budget(Protocol):
    def __call__(self, *arguments: str) -> tuple[int, str, str]: ...


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """`snapkv` loses nothing at three quarters, a tenth at a half and much at a quarter."""
    made = Made()
    for suite, worse in (("needle", 0.0), ("qa", 0.9)):
        made.anchors(suite)
        for retention, loss in (("0.25", 0.9), ("0.5", 0.1 + worse), ("0.75", 0.0)):
            made.recovers("snapkv", retention, spread(mean=1 - loss, sd=0.1), suite)
    return made.write(tmp_path / "store")


@pytest.fixture
def budget(store: Path, capsys: pytest.CaptureFixture[str]) -> Budget:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["budget", str(store), *arguments])
        captured = capsys.readouterr()
        return code, re.sub(" +", " ", captured.out), captured.err

    return run


def test_the_smallest_certified_retention_of_each_suite(budget: Budget) -> None:
    code, out, err = budget("--policy=snapkv", "--margin=0.2")
    assert (code, err) == (0, "")
    assert "\nneedle: keep 0.5, which saves 0% of the bytes\n" in out
    assert "\n0.75 certified -0.000 [-0.022, +0.022] 60\n" in out.replace("+0.000", "-0.000")
    assert "\n0.5 certified -0.100 [-0.122, -0.078] 60\n" in out
    assert "\n0.25 not certified -0.900 [-0.922, -0.878] 60\n" in out
    assert "\nqa: keep 0.75" in out
    assert "\n0.25 not tested" in out
    assert "\nall suites together: keep 0.75" in out
    assert "not worse than the full cache by more than 0.2 recovered" in out


def test_a_smaller_margin_needs_more_items(budget: Budget) -> None:
    out = budget("--policy=snapkv", "--margin=0.09")[1]
    assert "\nneedle: keep 0.75" in out
    assert re.search(r"\n0.5 not certified -0.100 \[-0.122, -0.078\] 60 about \d+\n", out)


def test_nothing_may_be_certified(budget: Budget) -> None:
    code, out, _ = budget("--policy=snapkv", "--margin=0.001")
    assert code == 0
    assert "\nneedle: no retention is certified\n" in out
    assert "\nall suites together: no retention is certified\n" in out


def test_another_metric(budget: Budget) -> None:
    assert "by more than 0.1 nll" in budget("--policy=snapkv", "--metric=nll")[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--policy=snapvk"], "--policy 'snapvk': expected one of snapkv; did you mean 'snapkv'?"),
        (["--policy=snapkv(windw=3)"], "expected one of snapkv; did you mean 'snapkv'?"),
        (["--policy=full"], "--policy 'full': expected one of snapkv"),
        (["--policy=snapkv,snapkv"], "--policy 'snapkv,snapkv': expected one of"),
        (["--policy=sn("], "--policy 'sn(': expected names"),
        (["--policy=snapkv", "--margin=0"], "--margin 0.0: expected a number above 0"),
        (["--policy=snapkv", "--margin=nan"], "--margin nan: expected a number above 0"),
        (["--policy=snapkv", "--metric=nl"], "--metric 'nl': expected one of exact, "),
    ],
)
def test_what_cannot_be_asked(budget: Budget, arguments: list[str], told: str) -> None:
    code, out, err = budget(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_a_store_of_anchors_has_no_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Made().anchors().write(tmp_path)
    assert main(["budget", str(store), "--policy=full"]) == 2
    assert "no records of a policy with a retention" in capsys.readouterr().err


def test_no_budget_is_recommended_for_what_knows_the_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(oracles=["cheat"]).anchors().recovers("cheat", "0.5", spread(mean=1.0, sd=0.1))
    assert main(["budget", str(made.write(tmp_path / "store")), "--policy=cheat"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("cheat (oracle): how little of the cache is certified to do?")
    assert "it knows the true answers: no budget is recommended to a policy that does not" in out
