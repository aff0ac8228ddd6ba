"""The policy around the scorer: which weights it takes, and what it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import ColumnSums, LoadedModel
from kvharness.cli.main import main
from kvharness.engine.select import score_tokens
from kvharness.errors import TrainingProblem
from kvharness.model.context_reading import prefill
from kvharness.policy.trace import Trace
from kvharness.pretrained.find import find_model
from kvharness_policies.sip.policy import SIP

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.model.loaded import Runtime

TOKENS = 60


@pytest.fixture
def trained(tiny_model: Path, book: Path, tmp_path: Path) -> Path:
    """Weights that see everything."""
    given = ("--text", str(book), "--kv-model", str(tiny_model), "--out", str(tmp_path))
    sizes = ("--windows=40", "--layers=2", "--context=80", "--steps=2", "--kv-seeds=1")
    assert main(["train", "sip", *given, *sizes, "--features=all"]) == 0
    return tmp_path


def test_features_choose_the_weights_and_what_is_observed(
    trained: Path, tiny_model: Path, runtime: Runtime
) -> None:
    policy = SIP(weights=str(trained), features="prefill+values+keys+position")
    assert policy == SIP(weights=str(trained), features="prefill+values+keys+position")
    assert policy.needs == frozenset({ColumnSums()})
    assert SIP().needs == frozenset()
    model = LoadedModel(source=find_model(str(tiny_model)), module=runtime.model)
    ready = policy.ready(model, 0)
    ids = torch.randint(2, 1500, (TOKENS,), generator=torch.Generator().manual_seed(0))
    context, _ = prefill(runtime, ids.tolist(), policy.needs)
    layers = tuple(context.layers.values())
    trace = Trace(layers=layers, positions=torch.arange(TOKENS))
    scores = score_tokens(ready, trace, name="sip")
    assert scores.shape == (2, 2, TOKENS)
    for layer in layers:
        sums = layer.observed[ColumnSums()]
        sums.copy_(sums.flip(-1))
    assert not torch.equal(score_tokens(ready, trace, name="sip"), scores)


def test_weights_of_other_features_are_not_taken(trained: Path, tiny_model: Path) -> None:
    source = find_model(str(tiny_model))
    with pytest.raises(TrainingProblem, match=r"no small weights .* train sip --kv-model"):
        SIP(weights=str(trained)).checkpoint(source, 0)
    wide = SIP(weights=str(trained), size="1.7m", features="keys")
    command = "kvharness train sip --size 1.7m --features keys --kv-model"
    with pytest.raises(TrainingProblem, match=f"no 1.7m-keys weights .* {command}"):
        wide.checkpoint(source, 0)


def test_a_folder_that_is_not_there_is_named(tiny_model: Path) -> None:
    with pytest.raises(TrainingProblem, match="sip: there is no folder '/nowhere' with weights"):
        SIP(weights="/nowhere").checkpoint(find_model(str(tiny_model)), 0)


def test_a_damaged_trace_is_named(
    trained: Path, tiny_model: Path, book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = sorted((trained / "traces").glob("window-*"))[3]
    damaged.write_bytes(damaged.read_bytes()[:50])
    given = ("--text", str(book), "--kv-model", str(tiny_model), "--out", str(trained))
    sizes = ("--windows=40", "--layers=2", "--context=80", "--steps=2", "--kv-seeds=1")
    assert main(["train", "sip", *given, *sizes]) == 2
    error = capsys.readouterr().err
    assert f"{damaged}: cannot be read" in error
    assert "remove it, and it is collected again" in error


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"features": "key", "mode": "per-head"},
            "features='key': expected all, or some of position, keys",
        ),
        (
            {"features": "keys", "mode": "notebook"},
            "features='keys': mode='notebook' sees keys, values and positions",
        ),
    ],
)
def test_features_are_refused_early(
    choice: dict[str, str],
    message: str,
    book: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match=message):
        SIP(**choice)
    given = ("--text", str(book), "--kv-model", str(tiny_model), "--out", str(tmp_path))
    flags = [text for name, value in choice.items() for text in (f"--{name}", value)]
    assert main(["train", "sip", *given, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("window-*"))
