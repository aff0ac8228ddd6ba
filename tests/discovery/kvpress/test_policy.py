from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import HiddenStates, Positions, Protection
from kvharness.engine.select import keep_mask
from kvharness.errors import UsageProblem
from kvharness.policy.observation.layer_hooks import attention_modules
from tests.discovery.kvpress.conftest import DrawScores, KeepLast, MaskFirst

if TYPE_CHECKING:
    from kvharness.model.loaded import Runtime
    from tests.discovery.kvpress.conftest import MakeSeen

NOTHING = Protection(sinks=0, recents=0)


def kept(seen: tuple[Any, Any], budget: int, protection: Protection = NOTHING) -> torch.Tensor:
    with torch.no_grad():
        return keep_mask(*seen, budget, protection, name="press")


@pytest.mark.parametrize("budget", [1, 3, 4, 10, 39, 40])
def test_the_budget_is_met_exactly_and_the_set_is_the_presses(
    make_seen: MakeSeen, budget: int
) -> None:
    mask = kept(make_seen(KeepLast()), budget)
    assert mask.shape == (2, 2, 40)
    assert mask[..., 40 - budget :].all()
    assert not mask[..., : 40 - budget].any()


def test_a_press_that_masks_gives_heads_unequal_budgets(make_seen: MakeSeen) -> None:
    mask = kept(make_seen(MaskFirst(), ranks=False), 10)
    assert mask.sum(dim=-1).tolist() == [[0, 20], [0, 20]]
    assert mask[:, 1, 20:].all()


def test_a_budget_that_no_ratio_gives_is_refused_with_the_nearest(make_seen: MakeSeen) -> None:
    assert int(kept(make_seen(KeepLast(step=4)), 12).sum()) == 12 * 4
    with pytest.raises(UsageProblem, match=r"keep 52 entries, .* 13 a head; .* 48 and 64"):
        kept(make_seen(KeepLast(step=4)), 13)


def test_what_the_contract_protects_comes_first(make_seen: MakeSeen) -> None:
    mask = kept(make_seen(KeepLast()), 10, Protection(sinks=4, recents=2))
    assert mask[0, 0].nonzero().flatten().tolist() == [0, 1, 2, 3, 34, 35, 36, 37, 38, 39]
    with pytest.raises(UsageProblem, match="--kv-sinks=0 --kv-recents=0"):
        kept(make_seen(MaskFirst(), ranks=False), 10, Protection(sinks=4, recents=2))


def test_nothing_is_left_on_model_press_or_trace(make_seen: MakeSeen, runtime: Runtime) -> None:
    press = KeepLast()
    policy, trace = make_seen(press)
    layers = copy.deepcopy(trace.layers)
    modules: list[Any] = attention_modules(runtime.model)
    before = [set(vars(module)) | set(module._modules) for module in modules]
    kept((policy, trace), 10)
    assert press == KeepLast()
    assert [set(vars(module)) | set(module._modules) for module in modules] == before
    for was, layer in zip(layers, trace.layers, strict=True):
        assert torch.equal(was.keys, layer.keys)
        assert torch.equal(was.values, layer.values)
        assert torch.equal(was.observed[HiddenStates()], layer.observed[HiddenStates()])


def test_modules_get_back_what_native_runs_left_on_them(
    make_seen: MakeSeen, runtime: Runtime
) -> None:
    modules: list[Any] = attention_modules(runtime.model)
    module = modules[0]
    own, masked = torch.nn.Identity(), (torch.tensor([0]),) * 3
    module.rotary_emb, module.masked_key_indices = own, masked
    try:
        kept(make_seen(MaskFirst(), ranks=False), 10)
        assert module.rotary_emb is own
        assert module.masked_key_indices is masked
        assert not hasattr(modules[1], "rotary_emb")
    finally:
        del module.rotary_emb, module.masked_key_indices


def test_modules_are_as_they_were_also_after_an_error(
    make_seen: MakeSeen, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> object:
        raise RuntimeError("no")

    monkeypatch.setattr(KeepLast, "compress", fail)
    with pytest.raises(RuntimeError, match="no"):
        kept(make_seen(KeepLast()), 10)
    assert not any(hasattr(m, "masked_key_indices") for m in attention_modules(runtime.model))


def test_what_a_press_draws_belongs_to_item_policy_and_layer(make_seen: MakeSeen) -> None:
    before = torch.get_rng_state()
    one = kept(make_seen(DrawScores()), 20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(kept(make_seen(DrawScores()), 20), one)
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(kept(make_seen(DrawScores(), words=("1", "2", "4")), 20), one)


def test_attention_is_given_where_it_is_wanted(
    make_seen: MakeSeen, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    plain = KeepLast.compress

    def compress(self: KeepLast, *given: Any) -> Any:
        seen.append(given[4])
        return plain(self, *given)

    monkeypatch.setattr(KeepLast, "compress", compress)
    kept(make_seen(KeepLast(), attends=True), 10)
    kept(make_seen(KeepLast()), 10)
    assert [None if each is None else tuple(each.shape) for each in seen] == [
        (1, 4, 40, 40),
        (1, 4, 40, 40),
        None,
        None,
    ]
    torch.testing.assert_close(seen[0].sum(dim=-1), torch.ones(1, 4, 40))
    assert not seen[0].triu(1).any()


def test_positions_follow_the_press(make_seen: MakeSeen) -> None:
    assert make_seen(KeepLast())[0].positions is Positions.ORIGINAL
    assert make_seen(KeepLast(), compact=True)[0].positions is Positions.COMPACT
