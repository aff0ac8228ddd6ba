"""An observation and an oracle of a stranger's package, as a user runs them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from kvharness.cli.main import main
from tests.plugin.conftest import Finished

if TYPE_CHECKING:
    from tests.plugin.conftest import MakeLab

SEEING = """
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch

from kvharness import Observation, Policy, afterwards


class Noting:
    def __init__(self):
        self.norms = {}

    def attended(self, call):
        self.norms[call.layer] = call.value[0].float().norm(dim=-1)

    def found(self):
        return self.norms


@dataclass(frozen=True)
class ValueNorms(Observation):
    @contextmanager
    def observing(self, reading):
        yield Noting()


@dataclass(frozen=True)
class Asked(Observation):
    future: ClassVar[bool] = True

    def observing(self, reading):
        return afterwards(lambda: reading.ahead().attention)


@dataclass(frozen=True)
class Large(Policy):
    needs = frozenset({ValueNorms()})

    def score(self, view):
        return view[ValueNorms()]


@dataclass(frozen=True)
class Cheat(Policy):
    needs = frozenset({Asked()})

    def score(self, view):
        return view[Asked()].unflatten(0, (view.kv_heads, -1)).mean(dim=1)
"""
CLAIMS = """
[[claim]]
id = "cheat-is-good"
kind = "better"
policy = "cheat"
baseline = "random"
suites = ["needle"]
retention = ["0.25"]
metric = "nll"
"""


@pytest.fixture(scope="module")
def seeing(make_lab: MakeLab) -> Finished:
    lab = make_lab()
    lab.install("seeing", {"large": "seeing:Large", "cheat": "seeing:Cheat"}, seeing=SEEING)
    (lab.folder / "claims.toml").write_text(CLAIMS)
    run = lab.run(
        "--policy=large,cheat,random",
        "--kv-claims=report",
        "--kv-claims-file=claims.toml",
    )
    assert main(["report", str(lab.folder / "store"), "-o", str(lab.folder / "report.html")]) == 0
    return Finished(lab, run)


def test_they_run_beside_the_anchors(seeing: Finished) -> None:
    assert seeing.result.ret == 0, seeing.text
    found = {record.policy for record in seeing.lab.records()}
    assert found == {"full", "floor", "oracle", "large", "cheat", "random"}


def test_the_oracle_is_marked_and_nobody_else(seeing: Finished) -> None:
    rows = re.findall(r"^(\w+(?: \(oracle\))?)  ", seeing.text, flags=re.MULTILINE)
    assert {"large", "random", "oracle", "cheat (oracle)"} <= {*rows}
    assert "cheat" not in rows


def test_a_claim_about_an_oracle_is_not_judged(seeing: Finished) -> None:
    assert "cheat knows the true answers, so it is an oracle" in " ".join(seeing.text.split())


def test_an_oracle_of_a_stranger_sees_what_the_first_one_sees(seeing: Finished) -> None:
    kept = {
        name: {each.item: each.mask_digest for each in seeing.lab.records() if each.policy == name}
        for name in ("oracle", "cheat", "large")
    }
    assert kept["cheat"] == kept["oracle"] != kept["large"]


def test_the_page_marks_it(seeing: Finished) -> None:
    html = (seeing.lab.folder / "report.html").read_text(encoding="utf-8")
    assert re.search(r'class="key anchor"[^/]*/></svg>cheat \(oracle\)</span>', html)
    assert re.search(r'class="key hue-0"[^/]*/></svg>large</span>', html)


def test_it_is_listed_as_an_oracle(
    seeing: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(seeing.lab.site)
    assert main(["policies"]) == 0
    status = {
        line.split()[0]: line.split()[3]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("cheat ", "large ", "oracle ", "random "))
    }
    assert status == {"cheat": "oracle", "large": "ready", "oracle": "anchor", "random": "ready"}
