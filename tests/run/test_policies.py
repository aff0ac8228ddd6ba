from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness.contract import EvictMode
from kvharness.discovery.registry import GROUP, Installed
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import UsageProblem
from kvharness.run.policies import Lineup

if TYPE_CHECKING:
    from pathlib import Path

    from kvharness.discovery.loaded import LoadedPolicy


def installed(name: str, target: str) -> Installed:
    entry = EntryPoint(name, target, GROUP)
    return Installed(name=name, distribution="mine-kv", version="1.0", entry_point=entry)


def test_anchors_come_first_and_once() -> None:
    lineup = Lineup.of(["snapkv,floor,tova"])
    assert lineup.slugs == ["full", "floor", "oracle", "snapkv", "tova"]


def test_without_a_choice_it_is_every_policy_that_needs_no_request() -> None:
    lineup = Lineup.of([])
    wrappers = {name for name, found in lineup.known.items() if found.wraps}
    others = {name for name, found in lineup.known.items() if found.on_request}
    assert wrappers, "which need a policy to wrap"
    assert others
    assert {*lineup.slugs} == {*lineup.known} - wrappers - others
    assert {*Lineup.of(["all"]).slugs} == {*lineup.known} - wrappers


def test_what_is_not_installed_is_refused() -> None:
    with pytest.raises(UsageProblem, match="nosuch"):
        Lineup.of(["nosuch"])


def test_a_broken_policy_leaves_the_others_in_their_order() -> None:
    known = {
        "broken": installed("broken", "no_such_module:Policy"),
        "random": installed("random", "kvharness_policies.random:Random"),
    }
    lineup = Lineup([PolicySpec(name=name) for name in known], known)
    assert lineup.slugs == ["broken", "random"]
    lineup.load()
    assert lineup.slugs == ["random"]
    assert list(lineup.policies) == ["random"]
    assert list(lineup.broken) == ["broken"]


def test_a_policy_is_loaded_once() -> None:
    lineup = Lineup.of(["snapkv"])
    lineup.load()
    before: dict[str, LoadedPolicy] = dict(lineup.policies)
    lineup.load()
    assert all(lineup.policies[slug] is policy for slug, policy in before.items())


def test_parameters_of_what_was_asked_for_are_refused_and_others_fail_by_themselves() -> None:
    asked = Lineup.of(["snapkv(windw=8)"])
    asked.load()
    with pytest.raises(UsageProblem, match=r"snapkv\(windw=8\).* its parameters are window=32"):
        asked.check_parameters()
    several = Lineup.of(["snapkv(windw=8),h2o,tova(kernel=3)"])
    several.load()
    with pytest.raises(UsageProblem, match=r"(?s)snapkv\(windw=8\).*\n.*tova\(kernel=3\)") as told:
        several.check_parameters()
    assert len(str(told.value).splitlines()) == 2
    needed = Lineup.of(["snapkv"])
    needed.add([PolicySpec(name="snapkv", parameters=(("windw", 8),))])
    needed.load()
    needed.check_parameters()
    assert list(needed.broken) == ["snapkv(windw=8)"]


def test_what_a_package_sets_where_it_is_imported_reaches_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sets_dtype.py").write_text(
        "import torch\n"
        "torch.set_default_dtype(torch.float64)\n"
        "def score(view):\n"
        "    return view.keys.sum(dim=-1)\n"
    )
    known = {"sets": installed("sets", "sets_dtype:score")}
    lineup = Lineup([PolicySpec(name="sets")], known)
    lineup.load()
    assert lineup.slugs == ["sets"]
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize("chosen", [[], ["all"]])
def test_policies_that_nobody_named_are_left_out_where_they_do_not_evict(chosen: list[str]) -> None:
    lineup = Lineup.of(chosen, EvictMode.DECODE)
    lineup.load()
    assert {"full", "floor", "oracle", "random", "h2o", "tova"} <= {*lineup.slugs}
    assert "snapkv" not in lineup.slugs
    assert ("sage-kv" in lineup.slugs) is bool(chosen)


def test_a_policy_that_was_named_is_refused_where_it_does_not_evict() -> None:
    for chosen in (["snapkv"], ["all,snapkv"]):
        lineup = Lineup.of(chosen, EvictMode.DECODE)
        with pytest.raises(UsageProblem, match="--policy snapkv: not made for --kv-evict=decode;"):
            lineup.load()
