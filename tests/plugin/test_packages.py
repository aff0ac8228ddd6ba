"""Policies of other people's packages: good ones, ones that break the interface, broken ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import Finished

if TYPE_CHECKING:
    from tests.plugin.conftest import Lab, MakeLab

STRANGE = '''
from dataclasses import dataclass, replace

import torch

from kvharness import Capabilities, Policy


class Zeros(Policy):
    def score(self, view):
        return torch.zeros(view.kv_heads, view.tokens)


class Shape(Policy):
    def score(self, view):
        return torch.zeros(view.kv_heads, view.tokens + 1)


class NotFinite(Zeros):
    def score(self, view):
        scores = super().score(view)
        scores[0, 3] = float("nan") if view.layer == 1 else 0.0
        return scores


class Kind(Policy):
    def score(self, view):
        return torch.zeros(view.kv_heads, view.tokens, dtype=torch.float64)


class Nothing(Policy):
    def score(self, view):
        return None


class Budgets(Zeros):
    def allocate(self, choice):
        budgets = super().allocate(choice)
        budgets[0, 0] += 1
        return budgets


class Sinks(Zeros):
    def select(self, choice, budgets):
        bare = replace(choice, protected=torch.zeros_like(choice.protected))
        return super().select(bare, budgets).flip(-1)


class Raises(Policy):
    def score(self, view):
        raise LookupError("no luck\\nat all")


class Unready(Zeros):
    def ready(self, model, seed):
        raise FileNotFoundError("no checkpoint")


class Unfinished(Policy):
    pass


def newest(view):
    """A plain score function."""
    return view.positions.float().repeat(view.kv_heads, 1)


@dataclass(frozen=True)
class Offset(Policy):
    by: int = 1

    def score(self, view):
        return newest(view) * self.by


def wrapped(inner: Policy, by: int = 2) -> Policy:
    assert isinstance(inner, Policy)
    return Offset(by=by)


class Old(Zeros):
    def prepare(self, model, seed):
        self.seed = seed


class Choosy(Zeros):
    def select(self, scores, budgets, protected):
        return scores > 0


class Still(Zeros):
    capabilities = Capabilities(decodes=True)


thing = 3
'''
#: What each says of its layer and of what was expected; 400 tokens at 0.25 in 2 layers of 2 heads.
COMPLAINTS = {
    "shape": r"\(layer 0\): score returned shape \(2, 401\), expected \(2, 400\)",
    "not-finite": r"\(layer 1\): score has 1 NaN or infinite entries, expected finite numbers",
    "kind": r": score returned torch.float64, expected torch.float32",
    "nothing": r"\(layer 0\): score returned NoneType, expected a tensor",
    "budgets": r": budgets add up to 401, expected 100 x 2 x 2 = 400",
    "sinks": r"\(layer 0\): select evicted protected tokens \[0, 1, 2, 3",
    "raises": r": LookupError: no luck \(\w+\.py:\d+\)$",
    "unready": r": ready failed with FileNotFoundError: no checkpoint \(\w+\.py:\d+\)$",
    "unfinished": r": NotImplementedError: Unfinished must implement score\(view\)$",
}
CLASSES = {name: f"strange_kv:{name.title().replace('-', '')}" for name in COMPLAINTS}
GOOD = ("newest", "offset+by3", "wrapped+newest+by5", "snapkv+window8")
#: Specification and why it does not load.
UNLOADABLE = {
    "broken": r"from broken-kv 0\.3 cannot be loaded: ModuleNotFoundError: No module named 'gone'",
    "absent": r"from strange-kv 1\.5 cannot be loaded: AttributeError: .*'Absent'",
    "thing": r"from strange-kv 1\.5 cannot be loaded: TypeError: int is no policy; ",
    "old": r"from strange-kv 1\.5: it has a method prepare, .*; use ready\(model, seed\), which",
    "choosy": r"from strange-kv 1\.5: it has select\(scores, budgets, protected\); write select",
    "still": r"from strange-kv 1\.5: its capabilities declare decodes=True, and it has no step",
}


def populate(lab: Lab) -> None:
    others = ("newest", "thing", "wrapped")
    entries = {**CLASSES, **{name: f"strange_kv:{name}" for name in others}}
    entries |= {name.lower(): f"strange_kv:{name}" for name in ("Old", "Choosy", "Still")}
    entries |= {"offset": "strange_kv:Offset", "absent": "strange_kv:Absent"}
    lab.install("strange-kv", entries, version="1.5", strange_kv=STRANGE)
    broken = {"broken": "broken_kv:Policy"}
    lab.install("broken-kv", broken, version="0.3", broken_kv="import gone\n")


@pytest.fixture(scope="module")
def run(make_lab: MakeLab) -> Finished:
    lab = make_lab()
    populate(lab)
    names = ("newest", "offset(by=3)", "wrapped(newest, by=5)", "snapkv(window=8)")
    policies = ",".join([*names, *COMPLAINTS, *UNLOADABLE])
    return Finished(lab, lab.run(f"--policy={policies}", "--kv-seeds=1", "-rA"))


def test_what_is_wrong_with_one_policy_leaves_the_others_alone(run: Finished) -> None:
    run.result.assert_outcomes(passed=3 + len(GOOD), failed=len(COMPLAINTS), errors=len(UNLOADABLE))
    assert run.result.ret == pytest.ExitCode.TESTS_FAILED
    assert "INTERNALERROR" not in run.text
    assert "Traceback" not in run.text


@pytest.mark.parametrize("name", GOOD)
def test_a_good_policy_passes(run: Finished, name: str) -> None:
    assert f"PASSED suites/test_needle.py::test_needle[{name}-r0.25-s0]" in run.result.outlines
    assert [record.policy for record in run.lab.records()].count(name) == 2


@pytest.mark.parametrize("name", COMPLAINTS)
def test_a_policy_that_breaks_the_interface_fails_its_cells(run: Finished, name: str) -> None:
    # A policy gets ready once for all items; everything else is of the first item.
    item = "" if name == "unready" else "needle-s0-00: "
    pattern = rf"^{item}policy '{name}'.*{COMPLAINTS[name]}"
    assert re.search(pattern, run.text, flags=re.MULTILINE), run.text
    assert not [record for record in run.lab.records() if record.policy == name]
    failed = f"FAILED suites/test_needle.py::test_needle[{name}-r0.25-s0]"
    assert sum(line.startswith(failed) for line in run.result.outlines) == 1


@pytest.mark.parametrize("spec", UNLOADABLE)
def test_a_policy_that_does_not_load_is_one_collection_error(run: Finished, spec: str) -> None:
    headings = [line for line in run.result.outlines if f" ERROR collecting policy {spec} " in line]
    assert len(headings) == 1
    pattern = rf"policy '{re.escape(spec)}': {UNLOADABLE[spec]}"
    assert re.search(pattern, run.text), run.text
    assert f"ERROR policy {spec}" in run.text


def test_a_broken_package_that_was_not_asked_for_is_not_imported(lab: Lab) -> None:
    populate(lab)
    lab.run("--kv-seeds=1").assert_outcomes(passed=4)
