from __future__ import annotations

import importlib
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from kvharness import Queries
from kvharness.contract import Protection
from kvharness.discovery.registry import installed
from kvharness.discovery.spec import PolicySpec
from kvharness.engine.select import keep_mask
from kvharness.model.context_reading import prefill
from kvharness.policy.trace import LayerTrace, Trace
from kvharness.records.store import Store
from kvharness.testing import checks_for
from tests.model.test_context_reading import Saliency, observed

if TYPE_CHECKING:
    import pytest

    from kvharness.model.loaded import Runtime

RECORDED = Path(__file__).parents[1] / "suites/recorded"
RETENTIONS = ("0.1", "0.25", "0.5", "0.75")
SUITES = ("needle", "qa", "summarization")
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_policy_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, around, _ = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    (tmp_path / "around.py").write_text(around, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    policy = importlib.import_module("mine").LastEight()
    layer = LayerTrace(
        keys=torch.randn(2, 40, 8),
        values=torch.randn(2, 40, 8),
        observed={Queries(8): torch.randn(4, 8, 8)},
        scaling=0.3,
    )
    trace = Trace(layers=(layer,) * 3, positions=torch.arange(40))
    protection = Protection(sinks=2, recents=2)
    mask = keep_mask(policy, trace, 10, protection, name="mine")
    assert mask.sum(dim=-1).tolist() == [[10, 10]] * 3
    shallow = importlib.import_module("around").Shallow(policy)
    mask = keep_mask(shallow, trace, 10, protection, name="around")
    assert mask.sum(dim=-1).tolist() == [[12, 12], [10, 10], [8, 8]]
    assert len(code.strip().splitlines()) <= 20


def test_the_observation_of_the_readme_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: Runtime
) -> None:
    *_, code = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "salient.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    policy = importlib.import_module("salient").Salient()
    checks = checks_for(policy)
    for check in checks:
        check.function(policy, count=3)
    assert "cells_independent" in {check.name for check in checks}
    context, _ = prefill(runtime, range(2, 40), policy.needs)
    assert context.observing_seconds(policy.needs) > 0
    (observation,) = policy.needs
    found = [layer.observed[observation] for layer in context.layers.values()]
    expected = observed(runtime, Saliency(), range(2, 40))
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_two_commands_come_first() -> None:
    first = re.search(r"```console\n(.*?)```", README, flags=re.DOTALL)
    assert first is not None
    assert [line.partition("#")[0].strip() for line in first[1].splitlines()] == [
        "$ pip install nox && nox -s bench",
        "$ nox -s tests",
    ]


Numbers = dict[tuple[str, str, str | None], list[tuple[float, float]]]


def numbers(folder: Path) -> Numbers:
    """Negative log-likelihoods and scores of a suite's items under a policy at a retention."""
    found: Numbers = defaultdict(list)
    for stored in Store.read(folder).by_key.values():
        record = stored.record
        place = record.suite, record.policy, record.retention
        found[place].append((record.metrics["nll"], record.score))
    return found


def row(found: Numbers, policy: str) -> list[str]:
    """The recovered share of the gap at each retention, then each suite's score at a quarter."""

    def mean(suite: str, policy: str, retention: str | None, column: int = 0) -> float:
        assert len(found[suite, policy, retention]) == 60
        return fmean(each[column] for each in found[suite, policy, retention])

    def recovered(suite: str, retention: str) -> float:
        floor, full = mean(suite, "floor", None), mean(suite, "full", None)
        return (floor - mean(suite, policy, retention)) / (floor - full)

    shares = [fmean(recovered(suite, each) for suite in SUITES) for each in RETENTIONS]
    scores = [mean(suite, policy, "0.25", 1) for suite in SUITES]
    return [f"{number:.2f}" for number in (*shares, *scores)]


def names_of(policy: str) -> tuple[str, ...]:
    (spec,) = PolicySpec.parse_list(policy)
    return spec.names


def package_policies() -> set[str]:
    """Every policy and wrapper of this project's own package."""
    found = installed().items()
    return {name for name, each in found if each.distribution == "kvharness-policies"}


def test_the_table_of_all_policies_is_what_was_recorded() -> None:
    table = README.partition("## Every policy at one budget")[2].partition("\n## ")[0]
    cells = [[each.strip(" `") for each in line.split("|")[1:-1]] for line in table.splitlines()]
    shown = {each[0]: each[1:] for each in cells if len(each) == 8 and each[-1][:1].isdigit()}
    recorded = [numbers(RECORDED / name) for name in ("smollm2-135m", "smollm2-135m-on-request")]
    for policy, told in shown.items():
        (spec,) = PolicySpec.parse_list(policy)
        found = next(each for each in recorded if ("qa", spec.slug, "0.75") in each)
        assert told == row(found, spec.slug), policy
    whole = {place[1] for found in recorded for place in found if place[2] == "0.75"}
    assert len(shown) == len(whole) > 25
    missing = package_policies() - {name for each in shown for name in names_of(each)}
    assert missing == {"full", "floor"}, "the ends of the scale"
