from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import torch

from kvharness import Capabilities, Queries, as_policy
from kvharness.cell import Cell, Group, cells_of
from kvharness.discovery import registry
from kvharness.discovery.loaded import LoadedPolicy
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import (
    KvharnessError,
    ModelProblem,
    StoreProblem,
    TrainingProblem,
    UsageProblem,
)
from kvharness.isolation.last_words import BlackBox
from kvharness.policy.interface import FunctionPolicy, LoadedModel, Policy
from kvharness.records.store import Store
from kvharness.run.runner import Runner
from tests.run.test_settings import settings as settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kvharness.items.item import Item
    from kvharness.policy.view import View
    from kvharness.pretrained.find import ModelSource
    from kvharness.run.outcome import GroupOutcome

GROUP = Group("needle", 0)
SLUGS = ("full", "floor", "snapkv")


class Start(Protocol):
    """A runner on the tiny model and the test's own store."""

    def __call__(
        self, *, changes: dict[str, object] | None = ..., more: dict[str, Policy] | None = ...
    ) -> Runner: ...


def loaded(slug: str, policy: Policy) -> LoadedPolicy:
    return LoadedPolicy(
        spec=PolicySpec(name=slug),
        policy=policy,
        distribution="mine-kv",
        version="1.0",
        digest=lambda: "s",
        parameters="{}",
    )


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path: Path, tiny_model: Path, said: list[str]) -> Start:
    base = {
        "policy": [",".join(SLUGS)],
        "retention": ["0.25"],
        "kv_seeds": "1",
        "kv_items": "2",
        "kv_context": "300",
        "kv_model": str(tiny_model),
        "kv_device": "cpu",
        "kv_dtype": "float32",
        "kv_generate": "none",
        "kv_store": str(tmp_path / "store"),
        "kv_claims": "off",
    }
    known = registry.installed()

    def runner(
        *,
        changes: dict[str, object] | None = None,
        more: dict[str, Policy] | None = None,
    ) -> Runner:
        policies = {slug: registry.load(PolicySpec(name=slug), known) for slug in SLUGS}
        policies |= {slug: loaded(slug, policy) for slug, policy in (more or {}).items()}
        return Runner(settings_of({**base, **(changes or {})}), policies, say=said.append)

    return runner


def cells(*slugs: str) -> list[Cell]:
    chosen = {slug: [Fraction(1, 4)] for slug in slugs or SLUGS}
    return list(cells_of("needle", retentions=chosen, seeds=1))


def run(runner: Runner, *slugs: str) -> GroupOutcome:
    try:
        return runner.run(GROUP, cells(*slugs))
    finally:
        runner.close()


def test_a_group_is_computed_stored_and_reused(
    start: Start, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(start())
    assert (first.items, first.computed, first.reused, first.failures) == (2, 6, 0, {})
    assert list(first.records) == [cell.name for cell in cells()]
    for records in first.records.values():
        assert [record.item for record in records] == ["needle-s0-00", "needle-s0-01"]
    assert said == ["needle-s0: computing 6 records on 2 items, 0 reused from store"]

    monkeypatch.setattr("kvharness.model.loaded.Runtime.load", None)
    second = run(start())
    assert (second.computed, second.reused) == (0, 6)
    assert second.records == first.records
    stored = Store.read(tmp_path / "store")
    assert sorted(stored.by_key) == sorted(r.key for rs in first.records.values() for r in rs)
    assert len(said) == 1, "nothing is said where nothing is done"


def test_only_missing_records_are_computed_and_items_keep_their_order(
    start: Start, said: list[str], tmp_path: Path
) -> None:
    run(start(), "full")
    (file,) = (tmp_path / "store").glob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], lines[2]]))
    outcome = run(start(), "full", "snapkv")
    assert (outcome.computed, outcome.reused) == (3, 1)
    assert said[-1] == "needle-s0: computing 3 records on 2 items, 1 reused from store"
    for records in outcome.records.values():
        assert [record.item for record in records] == ["needle-s0-00", "needle-s0-01"]


def test_fresh_reuses_nothing(start: Start) -> None:
    run(start(), "full")
    assert run(start(changes={"kv_fresh": True}), "full").computed == 2


def test_a_record_does_not_depend_on_what_runs_beside_it(start: Start) -> None:
    together = run(start(changes={"kv_fresh": True})).records["snapkv-r0.25-s0"]
    alone = run(start(changes={"kv_fresh": True}), "snapkv").records["snapkv-r0.25-s0"]
    for one, other in zip(together, alone, strict=True):
        assert (one.key, one.mask_digest, one.kept) == (other.key, other.mask_digest, other.kept)
        assert one.metrics == pytest.approx(other.metrics, rel=1e-4)


def test_the_header_says_what_was_run(start: Start, tmp_path: Path) -> None:
    run(start())
    (header,) = Store.read(tmp_path / "store").headers
    assert header.settings["contract"]["context"] == 300
    assert header.settings["model"]["name"] == "tiny"
    assert header.settings["model"]["dtype"] == "float32"
    assert header.settings["items"] == 2
    assert header.settings["options"]["--kv-dtype"] == "float32"
    assert sorted(header.settings["policies"]) == sorted(SLUGS)
    assert json.dumps(header.settings)


# -- policies that fail ---------------------------------------------------------------------------


class Unready(Policy):
    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del model
        raise OSError(f"no checkpoint for seed {seed}\nand more")

    def score(self, view: View) -> torch.Tensor:
        return torch.zeros(view.kv_heads, view.tokens)


def test_a_policy_that_cannot_get_ready_fails_alone(start: Start) -> None:
    outcome = run(start(more={"unready": Unready()}), "full", "unready")
    name = "unready-r0.25-s0"
    (message,) = outcome.failures.values()
    expected = r"policy 'unready': ready failed with OSError: no checkpoint for seed 0 \(.*py:\d+\)"
    assert list(outcome.failures) == [name]
    assert re.fullmatch(expected, message)
    assert outcome.computed == 2
    failed, fine = cells("unready", "full")
    assert outcome.failure(failed) == message
    assert not outcome.failure(fine)


class Learned(Unready):
    """Has weights for the first seed only."""

    def __init__(self, weights: str) -> None:
        self.weights = weights

    def checkpoint(self, source: ModelSource, seed: int) -> str:
        if seed:
            raise TrainingProblem(f"no weights of seed {seed} for {source.name}")
        return self.weights

    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del model, seed
        return self


def test_other_weights_are_another_key(start: Start) -> None:
    for weights, computed in (("abc", 2), ("abd", 2), ("abc", 0), ("", 2)):
        outcome = run(start(more={"learned": Learned(weights)}), "learned")
        assert (outcome.computed, outcome.reused) == (computed, 2 - computed)


@pytest.mark.parametrize("named", [("learned,snapkv",), ()])
def test_a_seed_without_weights_is_left_out_alone(start: Start, named: tuple[str, ...]) -> None:
    group = Group("needle", 1)
    cells = [
        Cell(suite="needle", policy=policy, retention=Fraction(1, 4), seed=1)
        for policy in ("learned", "snapkv")
    ]
    runner = start(more={"learned": Learned("abc")}, changes={"policy": [*named]})
    outcome = runner.run(group, cells)
    told = {"learned-r0.25-s1": "policy 'learned': no weights of seed 1 for tiny"}
    assert (outcome.failures, outcome.untrained) == ((told, {}) if named else ({}, told))
    assert len(outcome.records["snapkv-r0.25-s1"]) == outcome.computed == 2


def test_a_policy_that_fails_on_one_item_is_not_run_on_the_next(start: Start) -> None:
    seen: list[int] = []

    def fails(view: View) -> torch.Tensor:
        seen.append(view.layer)
        raise ZeroDivisionError("none\nat all")

    outcome = run(start(more={"fails": FunctionPolicy(function=fails)}), "full", "fails")
    (told,) = outcome.failures.values()
    assert re.fullmatch(
        r"needle-s0-00: policy 'fails': ZeroDivisionError: none \(test_runner\.py:\d+\)", told
    )
    assert len(outcome.records["full-s0"]) == 2
    assert seen == [0]


def test_a_policy_gets_ready_once_for_a_model_and_seed(start: Start) -> None:
    class Ready(Unready):
        def ready(self, model: LoadedModel, seed: int) -> Policy:
            assert isinstance(model, LoadedModel)
            calls.append((model.source.name, type(model.module).__name__, seed))
            return self

    calls: list[tuple[str, str, int]] = []
    assert run(start(more={"ready": Ready()}), "ready").computed == 2
    assert calls == [("tiny", "LlamaForCausalLM", 0)]


@dataclass(frozen=True)
class Seeded(Policy):
    """Scores with a number that it learns for each seed."""

    learned: float | None = None
    capabilities = Capabilities(deterministic=False)

    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del model
        return Seeded(learned=seed + 1.0)

    def score(self, view: View) -> torch.Tensor:
        assert self.learned is not None
        order = torch.arange(view.tokens) * self.learned % 7
        return order.expand(view.kv_heads, -1).contiguous()


def test_what_a_policy_learns_for_a_seed_is_of_its_group_alone(start: Start) -> None:
    runner = start(more={"seeded": Seeded()}, changes={"kv_seeds": "2", "kv_fresh": True})
    chosen = cells_of("needle", retentions={"seeded": [Fraction(1, 4)]}, seeds=2)
    by_seed = {cell.seed: cell for cell in chosen}
    # Seed 0 once more at the end: nothing of seed 1 is left.
    kept = []
    for seed in (0, 1, 0):
        outcome = runner.run(Group("needle", seed), [by_seed[seed]])
        (records,) = outcome.records.values()
        kept.append([record.mask_digest for record in records])
        assert not outcome.failures
    runner.close()
    assert kept[0] == kept[2] != kept[1]
    assert runner.policies["seeded"].policy == Seeded()


class Otherwise(Policy):
    """Needs more once it is ready than it declared."""

    def ready(self, model: LoadedModel, seed: int) -> Any:
        del model, seed
        return self.other()

    def other(self) -> Any:
        return as_policy(needs=frozenset({Queries(3)}))(lambda view: view.keys.float().sum(dim=-1))


class Nothing(Otherwise):
    def other(self) -> Any:
        return None


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            Otherwise(),
            r"needs frozenset\({Queries\(count=3\)}\), expected frozenset\(\), as it was",
        ),
        (Nothing(), r"ready returned NoneType, expected the policy that scores"),
    ],
)
def test_a_policy_that_is_another_one_once_it_is_ready_fails_alone(
    start: Start, policy: Policy, message: str
) -> None:
    outcome = run(start(more={"mine": policy}), "full", "mine")
    assert re.search(rf"policy 'mine': .*{message}", outcome.failures["mine-r0.25-s0"])
    assert outcome.computed == 2


def test_the_black_box_names_the_policy_while_its_code_runs(start: Start, tmp_path: Path) -> None:
    class Looks(Unready):
        def ready(self, model: LoadedModel, seed: int) -> Policy:
            del model, seed
            seen.append(path.read_text())
            return self

        def score(self, view: View) -> torch.Tensor:
            seen.append(path.read_text())
            return super().score(view)

    path, seen = tmp_path / "box", list[str]()
    plain = start(more={"looks": Looks()})
    runner = Runner(plain.settings, plain.policies, say=lambda _: None, box=BlackBox(path))
    run(runner, "looks", "snapkv")
    assert list(dict.fromkeys(seen)) == [
        "policy 'looks', getting ready for seed 0",
        "policy 'looks' on needle-s0-00",
        "policy 'looks' on needle-s0-01",
    ]
    assert not path.exists()


# -- checks before the first group ----------------------------------------------------------------


def test_what_can_run_passes_its_check_and_leaves_nothing(start: Start, tmp_path: Path) -> None:
    start().check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"kv_context": "2049"}, UsageProblem, "made for at most 2048 tokens"),
        ({"kv_device": "cuda:99"}, UsageProblem, "torch sees "),
        ({"kv_device": "toaster"}, UsageProblem, "expected auto, cpu, cuda or cuda:N"),
        ({"kv_model": "."}, ModelProblem, "holds no config.json"),
    ],
    ids=str,
)
def test_what_cannot_run_is_found_before_anything_is_computed(
    start: Start, changes: dict[str, object], kind: type[KvharnessError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        start(changes=changes).check()


def test_an_unwritable_store_is_found_before_anything_is_computed(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreProblem, match="cannot write to the store"):
        start(changes={"kv_store": str(tmp_path / "file" / "store")}).check()


def test_a_context_whose_question_does_not_fit_is_refused(start: Start) -> None:
    runner = start(changes={"kv_context": "2040"})
    runner.check()
    message = r"--kv-context 2040 and up to \d+ tokens of question and answer: tiny was made for"
    with pytest.raises(UsageProblem, match=message):
        run(runner)
    with pytest.raises(UsageProblem, match=message):
        runner.check([GROUP])


# -- what the user sees ---------------------------------------------------------------------------


def test_items_pass_through_the_progress_bar(start: Start) -> None:
    shown: list[tuple[list[str], str]] = []

    def progress(items: Sequence[Item], label: str) -> Iterable[Item]:
        shown.append(([item.name for item in items], label))
        return items

    plain = start()
    runner = Runner(plain.settings, plain.policies, say=lambda _: None, progress=progress)
    run(runner, "full")
    assert shown == [(["needle-s0-00", "needle-s0-01"], "needle-s0")]


def test_a_damaged_line_is_told_once_and_computed_again(
    start: Start, said: list[str], tmp_path: Path
) -> None:
    run(start())
    (file,) = (tmp_path / "store").glob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], b"{damaged}\n", *lines[3:]]))
    said.clear()
    assert run(start()).computed == 1
    assert [line for line in said if line.startswith("store: ")] == [
        line for line in said if "line 3: skipped" in line
    ]
    assert len(said) == 2
