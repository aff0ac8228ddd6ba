"""Which presses run, and what is said of the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness.discovery import registry
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import ParameterProblem
from kvharness.policy.view import Positions

if TYPE_CHECKING:
    from kvharness.discovery.loaded import LoadedPolicy
    from tests.parity.conftest import Stage

kvpress: Any = pytest.importorskip("kvpress")

REFUSED = {
    "ThinKPress": "channels of keys",
    "MergingPress": "folds evicted values",
    "CAMPress": "folds evicted values",
    "DecodingPress": "while decoding",
    "CompressionRatioDecodingPress": "while decoding",
    "PrefillDecodingPress": "while decoding",
    "DMSPress": "while decoding",
    "KVzipPress": "passes of its own",
    "KVgradPress": "passes of its own",
    "RestoreKVPress": "passes of its own",
    "FastKVzipPress": "passes of its own",
    "KVComposePress": "passes of its own",
    "ExpectedAttentionStatsPress": "model hub",
    "QFilterPress": "model hub",
    "KVzapPress": "model hub",
    "LUKVPress": "model hub",
    "DuoAttentionPress": "decides by itself",
    "SimLayerKVPress": "decides by itself",
    "FinchPress": "delimiter token",
    "ComposedPress": "budgets of its parts",
    "PerLayerCompressionPress": "hook on each layer",
}
WRAPPERS = {
    "AdaKVPress",
    "BlockPress",
    "ChunkKVPress",
    "ChunkPress",
    "CriticalAdaKVPress",
    "CriticalKVPress",
    "EntropyGatedChunkKVPress",
    "KeyRerotationPress",
}


def load(text: str) -> LoadedPolicy:
    (spec,) = PolicySpec.parse_list(text)
    return registry.load(spec, {})


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ParameterProblem, match=rf"{name} cannot run here: .*{REFUSED[name]}"):
        load(f"kvpress:{name}")


def test_every_other_press_of_the_version_runs(tiny: Stage) -> None:
    classes = {name: getattr(kvpress, name) for name in kvpress.__all__}
    presses = {name for name, kind in classes.items() if issubclass(kind, kvpress.BasePress)}
    left = presses - set(REFUSED) - {"BasePress", "ScorerPress"}
    assert left >= WRAPPERS
    for name in sorted(left):
        inner = "KnormPress()" if name in WRAPPERS else ""
        mask, _ = tiny.kept(f"kvpress:{name}({inner})", 100)
        assert int(mask.sum()) == 100 * 4, name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kvpress:SnapKvPress", r"no press 'SnapKvPress'\. Did you mean SnapKVPress\? Those that"),
        ("kvpress:ScorerPress", "no press 'ScorerPress'"),
        (
            "kvpress:SnapKVPress(windw=3)",
            r"'windw' \(did you mean window_size\?\); its parameters are .*window_size=64",
        ),
        ("kvpress:SnapKVPress(window_size=x)", "expected a whole number such as 64"),
        ("kvpress:SnapKVPress(compression_ratio=0.5)", "give --retention"),
        ("kvpress:AdaKVPress", "missing .* 'press'"),
        ("kvpress:AdaKVPress(press=KnormPress)", r"write press=KnormPress\(\)"),
        ("kvpress:AdaKVPress(press=ThinKPress())", "ThinKPress cannot run here"),
        ("kvpress:AdaKVPress(NoPress)", "no press 'NoPress'"),
    ],
)
def test_what_cannot_be_built_is_told_in_a_line(text: str, reason: str) -> None:
    with pytest.raises(ParameterProblem, match=reason) as caught:
        load(text)
    assert "\n" not in str(caught.value)
    assert f"kvpress {registry.load(PolicySpec(name='kvpress:KnormPress'), {}).version}" in str(
        caught.value
    )


def test_a_record_names_library_version_and_every_setting() -> None:
    loaded = load("kvpress:CriticalKVPress(press=SnapKVPress(window_size=32))")
    assert loaded.distribution == "kvpress"
    assert loaded.version.startswith("0.5.")
    assert json.loads(loaded.parameters) == {
        "CriticalKVPress": {
            "press": {"SnapKVPress": {"window_size": "32", "kernel_size": "5"}},
            "epsilon": "0.0001",
            "first_stage_ratio": "0.5",
        }
    }
    other = load("kvpress:CriticalKVPress(press=KnormPress())")
    assert other.source != loaded.source or other.parameters != loaded.parameters


def test_rerotation_is_compact_positions_around_the_inner_press(tiny: Stage) -> None:
    loaded = load("kvpress:KeyRerotationPress(press=StreamingLLMPress())")
    assert loaded.policy.positions is Positions.COMPACT
    mask, _ = tiny.kept("kvpress:KeyRerotationPress(press=StreamingLLMPress())", 50)
    assert torch.equal(mask, tiny.kept("streaming-llm", 50)[0])


def test_our_attention_is_not_wrapped_by_theirs(tiny: Stage) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from kvharness.model.attention import KERNEL, _attention

    tiny.load("kvpress:KnormPress")
    assert ALL_ATTENTION_FUNCTIONS[KERNEL] is _attention
    assert ALL_ATTENTION_FUNCTIONS["sdpa"].__module__ == "kvpress.attention_patch"
