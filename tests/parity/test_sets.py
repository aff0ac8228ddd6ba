"""Our policies, presses through our adapter and kvpress by itself keep the same tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from tests.parity.conftest import Stage
    from tests.parity.native import Sets

kvpress: Any = pytest.importorskip("kvpress")

from tests.parity.native import kept_by, ratio_of  # noqa: E402 - transformers without kvpress

SNAPKV = "snapkv(window=8, kernel=5, pooling='avg')"
PRESSED = "SnapKVPress(window_size=8)"


@dataclass(frozen=True)
class Pair:
    """A policy of ours and a press; ``recents`` is what the press protects by itself and ours not.

    ``across`` tells that heads of a layer compete.
    """

    ours: str
    press: str
    recents: int = 0
    implementation: str = "sdpa"
    across: bool = False


PAIRS = (
    Pair("snapkv(window=32, kernel=5, pooling='avg')", "SnapKVPress(window_size=32)"),
    Pair("snapkv(window=8, kernel=3, pooling='avg')", "SnapKVPress(window_size=8, kernel_size=3)"),
    Pair("tova", "TOVAPress()", recents=1),
    Pair("knorm", "KnormPress()"),
    Pair("keydiff", "KeyDiffPress()"),
    Pair("position", "StreamingLLMPress()"),
    Pair("prefill-attention", "ObservedAttentionPress()", implementation="eager"),
    Pair("expected-attention", "ExpectedAttentionPress()"),
    Pair(
        "expected-attention(covariance=False, epsilon=0.01, horizon=64)",
        "ExpectedAttentionPress(use_covariance=False, epsilon=0.01, n_future_positions=64)",
    ),
    Pair(f"criticalkv({SNAPKV})", f"CriticalKVPress(press={PRESSED})"),
    Pair(
        "criticalkv(expected-attention(value_norm=False))",
        "CriticalKVPress(press=ExpectedAttentionPress(use_vnorm=False))",
    ),
    # Without a safeguard the two rules for sharing a layer's entries are one.
    Pair(f"ada({SNAPKV}, alpha=0)", f"AdaKVPress(press={PRESSED}, alpha_safeguard=0)", across=True),
)
SHARES = (0.25, 0.5, 0.75)


def _native(stage: Stage, pair: Pair, budget: int) -> torch.Tensor:
    press = eval(pair.press, vars(kvpress))  # noqa: S307 - as it is written in PAIRS
    press.compression_ratio = ratio_of(budget, len(stage.ids))
    sets = kept_by(press, stage.runtime, stage.ids, pair.implementation)
    return _mask(sets, len(stage.ids))


def _mask(sets: Sets, tokens: int) -> torch.Tensor:
    mask = torch.zeros(len(sets), len(sets[0]), tokens, dtype=torch.bool)
    for layer, heads in enumerate(sets):
        for head, kept in enumerate(heads):
            mask[layer, head, kept] = True
    return mask


def _expect_same(one: torch.Tensor, other: torch.Tensor, scores: torch.Tensor, pair: Pair) -> int:
    """Equal sets, or where tokens tie up to rounding equal scores; how many entries differ.

    CriticalKV's second stage ranks by more than its scores, so that its sets must be equal.
    """
    differ = int((one ^ other).sum()) // 2
    if not differ:
        return 0
    assert "critical" not in pair.ours, f"{differ} entries differ"
    if pair.across:
        one, other, scores = (each.flatten(1)[:, None] for each in (one, other, scores))
    assert torch.equal(one.sum(dim=-1), other.sum(dim=-1))
    for layer, head in (one ^ other).any(dim=-1).nonzero().tolist():
        row = scores[layer, head].double()
        kept = [row[each[layer, head]].sort().values for each in (one, other)]
        torch.testing.assert_close(*kept, rtol=1e-5, atol=1e-7 * float(row.abs().max()))
    return differ


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.press)
def test_three_ways_keep_the_same(tiny: Stage, pair: Pair, share: float) -> None:
    _expect_three_ways(tiny, pair, share)


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.press)
def test_three_ways_keep_the_same_on_real_weights(embedded: Stage, pair: Pair) -> None:
    _expect_three_ways(embedded, pair, SHARES[0])


def _expect_three_ways(stage: Stage, pair: Pair, share: float) -> None:
    budget = int(len(stage.ids) * share)
    ours, scores = stage.kept(pair.ours, budget, recents=pair.recents)
    native = _native(stage, pair, budget)
    pressed, _ = stage.kept(f"kvpress:{pair.press}", budget)
    assert int(native.sum()) == int(ours.sum()) == budget * native.shape[0] * native.shape[1]
    by_adapter = _expect_same(pressed, native, scores, pair)
    by_policy = _expect_same(ours, native, scores, pair)
    print(f"{pair.press} at {share}: {by_adapter}, {by_policy} of {int(native.sum())} tie")  # noqa: T201


@pytest.mark.slow
def test_a_flat_pyramid_is_snapkv(stage: Stage) -> None:
    """Where its last layer would hold less than the window, theirs gives all layers the same."""
    pair = Pair(SNAPKV, "PyramidKVPress(window_size=8)")
    budget = len(stage.ids) // 4
    ours, scores = stage.kept(pair.ours, budget)
    pressed, _ = stage.kept(f"kvpress:{pair.press}", budget)
    native = _native(stage, pair, budget)
    assert not _expect_same(pressed, native, scores, pair)
    assert not _expect_same(ours, native, scores, pair)


#: Presses without a policy of ours: the adapter alone is compared with kvpress.
OTHERS = (
    "LagKVPress(lag_size=32)",
    "CURPress()",
    "CapPress()",
    "NonCausalAttnPress()",
    "BlockPress(press=KnormPress(), block_size=32)",
    "EntropyGatedChunkKVPress(press=KnormPress())",
    "AdaKVPress(press=SnapKVPress(window_size=8))",
    "CriticalAdaKVPress(press=SnapKVPress(window_size=8))",
    "RandomPress(seed=3)",
)


@pytest.mark.parametrize("press", OTHERS)
def test_the_adapter_keeps_what_kvpress_keeps(tiny: Stage, press: str) -> None:
    budget = len(tiny.ids) // 4
    pressed, _ = tiny.kept(f"kvpress:{press}", budget)
    assert torch.equal(pressed, _native(tiny, Pair("", press), budget))


def test_pyramids_differ_in_what_the_window_counts_for(tiny: Stage) -> None:
    """Theirs shares the whole budget, ours what lies beyond the window that each layer keeps."""
    theirs, _ = tiny.kept("kvpress:PyramidKVPress(window_size=4)", 80)
    ours, _ = tiny.kept("pyramidkv(window=4, kernel=5, pooling='avg')", 80)
    assert theirs.sum(dim=-1).tolist() == [[156, 156], [4, 4]]
    assert ours.sum(dim=-1).tolist() == [[152, 152], [8, 8]]


def test_safeguards_differ_in_what_they_pin(tiny: Stage) -> None:
    """Theirs pins each head's first entries, ours mixes budgets: with all of it both are even."""
    masks = [
        tiny.kept(f"kvpress:AdaKVPress(press={PRESSED}, alpha_safeguard={alpha})", 50)[0]
        for alpha in (0.5, 1)
    ]
    own = [tiny.kept(f"ada({SNAPKV}, alpha={alpha})", 50)[0] for alpha in (0.5, 1)]
    assert not torch.equal(masks[0], own[0])
    assert torch.equal(masks[1], own[1])
