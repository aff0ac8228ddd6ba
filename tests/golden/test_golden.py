"""The engine does what the golden file says of its version; ``python -m tests.golden`` writes it.

The file has kept sets, numbers and texts of every policy, eviction mode and suite on random models
in float32. Kept sets are those that no near-tie decides (`borders`), and that stay the same when
all weights move by 1e-5: on an AMD EPYC the file holds with AVX2, without vector units, with two
threads, without oneDNN, and with transformers 5.2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import Protection
from kvharness.contract import EvictMode
from kvharness.discovery import registry
from kvharness.engine import answer as batch_module
from kvharness.engine import blockwise_prefill as blockwise_module
from kvharness.engine import decode as decode_module
from kvharness.engine import score as scoring_module
from kvharness.engine.evictor import Evictor
from kvharness.items import text_metrics as text_metrics_module
from kvharness.items.suites import SUITES
from kvharness.model.evicted_cache import Kept
from kvharness.model.rotary import Rotation
from kvharness.policy import budgets as budgets_module
from kvharness.policy.attention_maps import causal_attention
from kvharness.policy.entries import top_entries
from kvharness.policy.observation import column_sums as observations_module
from kvharness.policy.seeds import generator
from kvharness.records.engine_version import ENGINE_VERSION
from tests.golden import __main__ as command
from tests.golden import golden_file
from tests.golden.borders import is_wide
from tests.golden.golden_file import FILE, Cause, Difference, Golden, advice, observe
from tests.golden.observed import WRAPPED, observed, scenes
from tests.golden.replies import generated, scored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

    from tests.golden.golden_file import Entries

    Plant = Callable[[pytest.MonkeyPatch], None]

GOLDEN = Golden.read()
#: Most that one reads before another file is a question for a reviewer.
LARGEST = 100_000


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_file_is_of_the_engines_version() -> None:
    assert GOLDEN.engine == ENGINE_VERSION, (
        f"{FILE.name} is of engine version {GOLDEN.engine}, and ENGINE_VERSION is "
        f"{ENGINE_VERSION}; run\n    {golden_file.COMMAND}"
    )


def test_the_engine_does_what_its_version_did() -> None:
    told = advice(GOLDEN.differences(observe()), GOLDEN.engine)
    if told:
        pytest.fail(told, pytrace=False)


def test_the_file_covers_every_policy_mode_and_suite() -> None:
    whole = [name for name, one in GOLDEN.entries.items() if "nll" in one or any(rows_of(one))]
    known = registry.installed()
    policies = {*(name for name, found in known.items() if not found.wraps), *WRAPPED}
    assert {name.rpartition(" ")[2] for name in whole} == policies | {"ties"}
    places = {tuple(name.split()[:2]) for name in whole}
    for first in ("global", "hybrid", *SUITES):
        assert {(first, mode.value) for mode in EvictMode} <= places
    others = {("global", "seen"), *(("global", f"prompt-{mode.value}") for mode in EvictMode)}
    assert others <= places
    assert {f"score {suite}" for suite in SUITES} <= GOLDEN.entries.keys()


def rows_of(entry: dict[str, Any]) -> list[str | None]:
    found: list[str | None] = entry.get("rows", [])
    return found


def test_near_ties_are_few_and_counted() -> None:
    rows = [row for one in GOLDEN.entries.values() for row in rows_of(one)]
    left_out = sum(one["left_out"] for one in GOLDEN.entries.values() if "rows" in one)
    assert rows.count(None) == left_out
    assert left_out < len(rows) / 10
    assert FILE.stat().st_size < LARGEST


# -- what is another behaviour --------------------------------------------------------------------


def later_wins_ties(patch: pytest.MonkeyPatch) -> None:
    usual = top_entries

    def flipped(scores: Tensor, budgets: Tensor, protected: Tensor) -> Tensor:
        return usual(scores.flip(-1), budgets, protected.flip(-1)).flip(-1)

    patch.setattr("kvharness.policy.entries.top_entries", flipped)


def policies_protect_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Protection, "extend", lambda self, *_: self)


def keys_move_too_far(patch: pytest.MonkeyPatch) -> None:
    usual = Rotation.move
    patch.setattr(Rotation, "move", lambda self, keys, by: usual(self, keys, by + by.sign()))
    patch.setattr(Rotation, "moves", lambda *_, **__: True)


def questions_come_later(patch: pytest.MonkeyPatch) -> None:
    usual = Kept.next_position
    patch.setattr(Kept, "next_position", lambda self: usual(self) + 1)


def windows_attend_flatly(patch: pytest.MonkeyPatch) -> None:
    usual = causal_attention
    flat: Any = lambda queries, keys, scaling: usual(queries, keys, scaling / 2)  # noqa: E731
    patch.setattr("kvharness.policy.attention_maps.causal_attention", flat)


def sums_forget_the_last_query(patch: pytest.MonkeyPatch) -> None:
    usual = observations_module.column_sums

    def shorter(query: Tensor, key: Tensor, scaling: float) -> Tensor:
        # In float32 nothing but this query's share is missing.
        return usual(query, key, scaling) - usual(query[:, -1:], key, scaling)

    patch.setattr(observations_module, "column_sums", shorter)


def draws_ignore_the_item(patch: pytest.MonkeyPatch) -> None:
    usual = generator
    patch.setattr("kvharness.policy.trace.generator", lambda seed, _, *rest: usual(seed, *rest))


def shares_are_rounded_up(patch: pytest.MonkeyPatch) -> None:
    usual = budgets_module._rounded

    def reversed_remainders(real: Tensor, totals: Tensor, high: int) -> Tensor:
        return usual(real.flip(-1), totals, high).flip(-1)

    patch.setattr(budgets_module, "_rounded", reversed_remainders)


def blocks_are_short(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(blockwise_module, "BLOCK", 96)


def steps_forget_scores(patch: pytest.MonkeyPatch) -> None:
    usual = Evictor.standing

    def forgetful(self: Evictor, mask: Tensor, scores: Tensor) -> Any:
        return usual(self, mask, torch.zeros_like(scores))

    patch.setattr(Evictor, "standing", forgetful)


def replies_are_short(patch: pytest.MonkeyPatch) -> None:
    usual = decode_module.greedy
    cut: Any = lambda *given, **more: [row[:-1] for row in usual(*given, **more)]  # noqa: E731
    patch.setattr(batch_module, "greedy", cut)


def articles_are_words(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        text_metrics_module, "squad_normalise", lambda text: " ".join(text.lower().split())
    )


def surprise_is_added_up(patch: pytest.MonkeyPatch) -> None:
    usual = scoring_module.score_question

    def total(question: Any, index: int, answers: Any, *rest: Any) -> Any:
        record = usual(question, index, answers, *rest)
        return replace(record, nll=-float(answers.logprob[index].sum()))

    patch.setattr("kvharness.engine.item_run.score_question", total)
    patch.setattr("tests.golden.replies.score_question", total)


#: A change of the engine, and for which scene and policies it must be seen.
PLANTED: list[tuple[Plant, str, tuple[str, ...]]] = [
    (later_wins_ties, "global prefill", ("ties", "snapkv")),
    (policies_protect_nothing, "global prefill", ("snapkv", "expected-attention")),
    (keys_move_too_far, "global prefill", ("streaming-llm",)),
    (keys_move_too_far, "global decode", ("streaming-llm",)),
    (questions_come_later, "needle prefill", ("h2o", "random", "streaming-llm")),
    (windows_attend_flatly, "global prefill", ("snapkv", "lava", "dapq")),
    (sums_forget_the_last_query, "global prefill", ("vatp", "caote(h2o)")),
    (draws_ignore_the_item, "qa blocks", ("random",)),
    (shares_are_rounded_up, "global prefill", ("squeeze(snapkv)",)),
    (blocks_are_short, "ledger blocks", ("keydiff", "random", "oracle")),
    (steps_forget_scores, "global decode", ("scissorhands",)),
    (surprise_is_added_up, "hybrid blocks", ("full", "keydiff")),
]


@pytest.mark.parametrize(
    ("plant", "name", "policies"), PLANTED, ids=[plant.__name__ for plant, _, _ in PLANTED]
)
def test_another_behaviour_is_seen(
    plant: Plant, name: str, policies: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = replace(scenes()[name], policies=policies)
    assert not GOLDEN.differences(observed(scene))
    plant(monkeypatch)
    found = GOLDEN.differences(observed(scene))
    assert {each.cause for each in found} == {Cause.ENGINE}
    assert {each.name for each in found} == {f"{name} {policy}" for policy in policies}


@pytest.mark.parametrize(
    ("plant", "look", "seen"),
    [
        (replies_are_short, generated, {"h2o", "keydiff", "snapkv"}),
        (articles_are_words, scored, {"needle", "summarization"}),
        (surprise_is_added_up, scored, {"needle", "ledger"}),
    ],
)
def test_another_reply_or_score_is_seen(
    plant: Plant, look: Callable[[], Entries], seen: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    found = GOLDEN.differences(look())
    assert {each.cause for each in found} == {Cause.ENGINE}
    assert seen <= {each.name.rpartition(" ")[2] for each in found}


# -- whose change it is, and what is to be done ---------------------------------------------------


def altered(name: str, **changes: Any) -> Entries:
    return {name: {**GOLDEN.entries[name], **changes}}


def test_a_change_is_the_policys_where_its_code_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "global prefill keydiff"
    entries = altered(name, kept=[1, 2])
    (found,) = GOLDEN.differences(entries)
    assert found == Difference(name, Cause.ENGINE, "kept is [1, 2], not [128, 128]")
    monkeypatch.setattr(golden_file, "_code", lambda _: "edited")
    (found,) = GOLDEN.differences(entries)
    assert found.cause is Cause.POLICY
    # Other code that does the same is no difference.
    assert not GOLDEN.differences(altered(name))


def test_what_else_may_differ() -> None:
    name = "global prefill keydiff"
    assert [
        (each.cause, each.what)
        for entries in (
            altered(name, item="other"),
            {name: {"item": GOLDEN.entries[name]["item"], "fails": "no memory"}},
            {"global prefill newest": {"item": "0"}},
            {"global prefill newest": {"item": "0", "fails": "no memory"}},
        )
        for each in GOLDEN.differences(entries)
    ] == [
        (Cause.ITEM, "the item has other content"),
        (Cause.ENGINE, "it fails: no memory"),
        (Cause.CELL, "it is not in the file"),
    ]


@pytest.mark.parametrize(("factor", "same"), [(1 + 1e-5, True), (1 + 1e-3, False)])
def test_numbers_may_round_differently(factor: float, same: bool) -> None:  # noqa: FBT001
    name = "global prefill keydiff"
    nll = [number * factor for number in GOLDEN.entries[name]["nll"]]
    assert (not GOLDEN.differences(altered(name, nll=nll))) is same


def test_the_advice_names_the_number_and_the_command() -> None:
    difference = Difference("global prefill tova", Cause.ENGINE, "kept is [1], not [2]")
    assert advice([difference], 4) == (
        "the engine does other things than its version 4 did. If that is a mistake, correct it. "
        "Otherwise raise ENGINE_VERSION in kvharness/records/engine_version.py to 5, so that no "
        "record of another behaviour is reused, and run\n"
        "    python -m tests.golden\n"
        "    global prefill tova: kept is [1], not [2]"
    )
    for cause in set(Cause) - {Cause.ENGINE}:
        told = advice([replace(difference, cause=cause)] * 20, 4)
        assert "no number is raised; run\n    python -m tests.golden\n" in told
        assert told.endswith("\n    ...")
    assert advice([], 4) == ""


def test_the_command_overwrites_no_other_behaviour_of_the_same_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "engine.json"
    for module in (command, golden_file):
        monkeypatch.setattr(module, "FILE", file)
    GOLDEN.write()
    before = file.read_text()
    assert before == FILE.read_text()
    name = "score needle"
    monkeypatch.setattr(command, "observe", lambda: altered(name, texts=[]))
    assert command.main() == 1
    assert "raise ENGINE_VERSION" in capsys.readouterr().out
    assert file.read_text() == before
    monkeypatch.setattr(command, "ENGINE_VERSION", ENGINE_VERSION + 1)
    monkeypatch.setattr(command, "golden", lambda found: Golden(ENGINE_VERSION + 1, found))
    assert command.main() == 0
    assert Golden.read() == Golden(ENGINE_VERSION + 1, altered(name, texts=[]))


# -- borders of kept sets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "kept", "wide"),
    [
        ([4.0, 3.0, 2.0, 1.0], [0, 1], True),
        ([4.0, 2.0001, 2.0, 1.0], [0, 1], False),
        # Further apart than rounding can move them, though near the largest.
        ([4e6, 0.2, 0.1, 0.0], [0, 1], True),
        # Equal numbers, of which the first are kept.
        ([4.0, 2.0, 2.0, 1.0], [0, 1], True),
        # Equal numbers, and another one that could be among them.
        ([2.0001, 2.0, 2.0, 1.0], [0, 1], False),
        ([4.0, 2.0, 2.0, 1.9999], [0, 1], False),
        ([4.0, 2.0001, 2.0, 1.9999], [0, 1, 2], False),
        # Sums that cancel are as uncertain as their parts.
        ([400.0, 0.002, 0.001, -300.0], [0, 1], False),
        ([400.0, 0.02, -0.01, -300.0], [0, 1], True),
        # Chosen by more than scores.
        ([1.0, 2.0, 3.0, 4.0], [0, 1], True),
        # Nothing to choose.
        ([1.0, 1.0, 1.0, 1.0], [0, 1, 2, 3], True),
    ],
)
def test_near_ties(scores: list[float], kept: list[int], wide: bool) -> None:  # noqa: FBT001
    mask = torch.zeros(1, 1, 4, dtype=torch.bool)
    mask[..., kept] = True
    protected = torch.zeros(4, dtype=torch.bool)
    assert is_wide(torch.tensor([[scores]]), mask, protected).tolist() == [[wide]]
    # What is protected is kept whatever its score.
    mask = torch.cat((mask, torch.ones(1, 1, 1, dtype=torch.bool)), dim=-1)
    longer = torch.tensor([[[*scores, scores[kept[-1]]]]])
    protected = torch.tensor([False] * 4 + [True])
    assert is_wide(longer, mask, protected).tolist() == [[wide]]
