"""Every installed policy on every kind of attention: exact totals, outputs of a masked model."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import Positions, Protection
from kvharness.cell import Cell
from kvharness.contract import Contract
from kvharness.discovery.declared import made_ready
from kvharness.discovery.registry import installed, load
from kvharness.discovery.spec import PolicySpec
from kvharness.engine import selector
from kvharness.engine.item_run import run_item
from kvharness.engine.select import select_entries
from kvharness.engine.task import Failure, Generate, Setup, Task
from kvharness.items.item import Item, Question
from kvharness.policy.interface import LoadedModel
from kvharness.pretrained.find import ModelSource
from kvharness.records.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.model.loaded import Runtime
    from kvharness.policy.interface import Policy
    from tests.conftest import MakePair

TOKENS, WINDOW, HEADS, KV_HEADS, SIZE = 160, 24, 4, 2, 8
#: More than any policy protects at its defaults, so that every one has something to choose.
RETENTION, BUDGET = Fraction(5, 8), 100
PROTECTION = Protection(sinks=3, recents=5)
SHARED: dict[str, Any] = {
    "vocab_size": 1502,
    "hidden_size": HEADS * SIZE,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": SIZE,
    "max_position_embeddings": 512,
    "initializer_range": 0.4,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
}
HYBRID = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen3": {},
    "phi3": {"sliding_window": None},
    "gemma3": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 4,
        "sliding_window": WINDOW,
        "layer_types": HYBRID,
        "query_pre_attn_scalar": 20,
    },
}
WRAPPED = (
    "ada(snapkv)",
    "ada(pyramidkv)",
    "ada(criticalkv(snapkv))",
    "caote(h2o)",
    "caote(tova)",
    "caote(snapkv)",
    "coupled(snapkv)",
    "coupled(ada(snapkv))",
    "criticalkv(snapkv)",
    "criticalkv(expected-attention(value_norm=False))",
    "lkv-h(snapkv)",
    "lkv-h(coupled(tova))",
    "lkv-h(criticalkv(snapkv))",
    "squeeze(snapkv)",
    "squeeze(h2o)",
)
NAMES = sorted(name for name, found in installed().items() if not found.wraps)
SPECS = [spec for text in (*NAMES, *WRAPPED) for spec in PolicySpec.parse_list(text)]
#: What keeps uneven numbers of entries somewhere, given the room to.
UNEVEN = ("pyramidkv", "lava", "lkv", "ada+snapkv", "lkv-h+snapkv", "squeeze+snapkv")


def draw_ids(count: int, seed: int) -> tuple[int, ...]:
    drawn = torch.randint(2, 1502, (count,), generator=torch.Generator().manual_seed(seed))
    return tuple(int(each) for each in drawn)


def make_question(number: int) -> Question:
    return Question(
        text="",
        question=draw_ids(4, 10 + number),
        tail=draw_ids(2, 20 + number),
        answer=draw_ids(3, 30 + number),
        slots=((0, 3),),
        reference="",
        references=("",),
        evidence=((40, 50),),
        max_new_tokens=4,
    )


ITEM = Item(
    suite="qa",
    name="qa-s0-00",
    variant="facts",
    seed=0,
    context=draw_ids(TOKENS, 0),
    text="",
    questions=(make_question(0), make_question(1)),
)


class NaiveAttention:
    """Full attention by the definition, layer by layer, under a mask for every head.

    ``kept`` is bool ``[H, n]`` for each layer that is compressed: what tokens after the context see
    of it. The context itself sees all of it.
    """

    def __init__(self, kept: dict[int, Tensor]) -> None:
        self.kept = kept

    def __call__(  # noqa: PLR0917 - the signature is transformers'
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        sliding_window: int | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        del mask
        layer, tokens = int(module.layer_idx), query.shape[2]  # type: ignore[arg-type]
        shown = torch.ones(HEADS, tokens, tokens, dtype=torch.bool).tril()
        if sliding_window is not None:
            shown &= torch.ones(tokens, tokens, dtype=torch.bool).triu(1 - sliding_window)
        if layer in self.kept:
            shown[:, TOKENS:, :TOKENS] &= self.kept[layer][:, None, :]
        out = torch.zeros(1, tokens, HEADS, value.shape[-1])
        for head in range(HEADS):
            of = head // (HEADS // KV_HEADS)
            logits = query[0, head] @ key[0, of].T * scaling
            weights = logits.masked_fill(~shown[head], float("-inf")).softmax(dim=-1)
            out[0, :, head] = weights @ value[0, of]
        return out, None


def naive_nll(plain: PreTrainedModel, kept: dict[int, Tensor], question: Question) -> float:
    """Mean negative log-probability of the answer after the evicted context."""
    from transformers import AttentionInterface

    AttentionInterface.register("naive-masked", NaiveAttention(kept))
    plain.set_attn_implementation("naive-masked")
    lead = (*ITEM.context, *question.question, *question.tail)
    ids = torch.tensor([[*lead, *question.answer[:-1]]])
    with torch.inference_mode():
        logits = plain(ids, use_cache=False).logits[0]
    rows = logits[len(lead) - 1 :].log_softmax(dim=-1)
    return -float(rows.gather(1, torch.tensor(question.answer)[:, None]).mean())


@dataclass(frozen=True)
class Run:
    """Every policy's record and keep mask on one architecture."""

    plain: PreTrainedModel
    runtime: Runtime
    layers: list[int]
    policies: dict[str, Policy]
    records: dict[str, Record]
    reasons: dict[str, str]
    masks: dict[str, Tensor]


def ready(spec: PolicySpec, runtime: Runtime, path: Path) -> Task:
    loaded = load(spec, installed())
    source = ModelSource(name="made", path=path, digest="0")
    model = LoadedModel(source=source, module=runtime.model)
    policy = made_ready(loaded.policy.untrained(), model, 0, name=spec.slug)
    column = None if spec.slug in {"full", "floor"} else RETENTION
    cell = Cell(suite="qa", policy=spec.slug, retention=column, seed=0)
    return Task(cell=cell, policy=replace(loaded, policy=policy), key=f"key of {spec}")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def run(
    request: pytest.FixtureRequest, make_pair: MakePair, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    from transformers import AutoConfig

    changes = {"model_type": request.param, **ARCHITECTURES[request.param]}
    plain, runtime = make_pair(AutoConfig.for_model(**{**SHARED, **changes}))
    kinds = changes.get("layer_types", ["full_attention"] * SHARED["num_hidden_layers"])
    tasks = [ready(spec, runtime, tmp_path_factory.getbasetemp()) for spec in SPECS]
    masks: dict[str, Tensor] = {}

    def note(*given: Any, name: str) -> Tensor:
        masks[name] = select_entries(*given, name=name)
        return masks[name]

    contract = Contract(context=TOKENS, protection=PROTECTION)
    setup = Setup(runtime=runtime, contract=contract, generate=Generate.NONE, score_name="exact")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selector, "select_entries", note)
        results = list(run_item(setup, ITEM, tasks))
    return Run(
        plain=copy.deepcopy(plain),
        runtime=runtime,
        layers=[index for index, kind in enumerate(kinds) if kind == "full_attention"],
        policies={task.policy.slug: task.policy.policy for task in tasks},
        records={each.policy: each for each in results if isinstance(each, Record)},
        reasons={each.cell.policy: each.reason for each in results if isinstance(each, Failure)},
        masks=masks,
    )


def test_every_wrapper_is_tried() -> None:
    wrappers = {name for name, found in installed().items() if found.wraps}
    assert wrappers == {spec.name for spec in SPECS} - set(NAMES)


def test_every_policy_runs_or_says_why_it_cannot(run: Run) -> None:
    hybrid = len(run.layers) < run.runtime.model.config.num_hidden_layers
    moved = {n for n, policy in run.policies.items() if policy.positions is Positions.COMPACT}
    assert moved == {"streaming-llm"}
    assert set(run.reasons) == (moved if hybrid else set())
    assert all("compact positions" in reason for reason in run.reasons.values())
    assert set(run.records) == {spec.slug for spec in SPECS} - set(run.reasons)


def test_policies_are_told_which_layers_are_compressed(run: Run) -> None:
    model = LoadedModel(source=run.runtime.source, module=run.runtime.model)
    assert list(model.compressed) == run.layers


def test_every_policy_keeps_exactly_the_total_of_the_compressed_layers(run: Run) -> None:
    entry = 2 * SIZE * 4
    for name, record in run.records.items():
        budget = {"full": TOKENS, "floor": PROTECTION.total}.get(name, BUDGET)
        total = budget * len(run.layers) * KV_HEADS
        assert len(record.kept) == len(run.layers)
        assert sum(record.kept) == total, name
        assert record.realised_retention == budget / TOKENS
        assert record.cache_bytes == total * entry, name
        if name != "full":
            assert run.masks[name].shape == (len(run.layers), KV_HEADS, TOKENS)
            assert int(run.masks[name].sum()) == total
            assert run.masks[name][..., : PROTECTION.sinks].all(), name
            assert run.masks[name][..., -PROTECTION.recents :].all(), name


def test_budgets_differ_only_where_a_policy_says_so(run: Run) -> None:
    for name, mask in run.masks.items():
        counts = mask.sum(dim=-1)
        if not run.policies[name].capabilities.head_wise:
            assert counts.unique().numel() == 1, name
    for name in UNEVEN:
        assert run.masks[name].sum(dim=-1).unique().numel() > 1, name


def test_uneven_caches_take_the_bytes_of_even_ones(run: Run) -> None:
    even = run.records["snapkv"].cache_bytes
    for name in UNEVEN:
        assert run.records[name].cache_bytes == pytest.approx(even, rel=0.1), name


def test_policies_differ_from_each_other(run: Run) -> None:
    """A control: were every mask the same, the other tests would say little."""
    masks = {tuple(mask.flatten().tolist()) for mask in run.masks.values()}
    assert len(masks) > len(run.masks) * 3 // 4


def test_an_evicted_cache_answers_like_a_masked_model(run: Run) -> None:
    group = HEADS // KV_HEADS
    full = torch.ones(len(run.layers), KV_HEADS, TOKENS, dtype=torch.bool)
    for name, record in run.records.items():
        if run.policies[name].positions is Positions.COMPACT:
            continue
        heads = run.masks.get(name, full).repeat_interleave(group, dim=1)
        kept = dict(zip(run.layers, heads, strict=True))
        expected = [naive_nll(run.plain, kept, question) for question in ITEM.questions]
        found = [question.nll for question in record.questions]
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4), name


def test_what_is_evicted_changes_the_answers(run: Run) -> None:
    """A control: a model that looked at nothing would pass the test above."""
    full = nlls(run, ["full"])[0]
    others = nlls(run, ["floor", "random", "snapkv"])
    assert all(other != pytest.approx(full, rel=1e-3) for other in others)


def nlls(run: Run, names: Sequence[str]) -> list[list[float]]:
    return [[question.nll for question in run.records[name].questions] for name in names]
