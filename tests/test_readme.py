from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kvharness.contract import Protection
from kvharness.select import keep_mask
from kvharness.trace import LayerTrace, Trace

if TYPE_CHECKING:
    import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_policy_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    policy = importlib.import_module("mine").LastEight()
    layer = LayerTrace(
        keys=torch.randn(2, 40, 8),
        values=torch.randn(2, 40, 8),
        queries=torch.randn(4, 8, 8),
        scaling=0.3,
    )
    trace = Trace(layers=(layer,), positions=torch.arange(40), needs=policy.needs)
    protection = Protection(sinks=2, recents=2)
    mask = keep_mask(policy, trace, 10, protection, name="mine")
    assert mask.sum(dim=-1).tolist() == [[10, 10]]
    assert len(code.strip().splitlines()) <= 20


def test_the_two_commands_come_first() -> None:
    first = re.search(r"```console\n(.*?)```", README, flags=re.DOTALL)
    assert first is not None
    assert [line.partition("#")[0].strip() for line in first[1].splitlines()] == [
        "$ pip install nox && nox -s bench",
        "$ nox -s tests",
    ]
