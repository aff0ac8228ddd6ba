"""Running the engine on the golden stage: what each cell kept and answered, as JSON can hold it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import Policy, Protection
from kvharness.cell import Cell
from kvharness.contract import FIXED_ANCHORS, Contract, EvictMode, QuestionMode
from kvharness.discovery import registry
from kvharness.discovery.loaded import LoadedPolicy
from kvharness.discovery.spec import PolicySpec
from kvharness.engine.item_run import run_item
from kvharness.engine.task import Generate, Setup, Task
from kvharness.items.drawing import Drawing
from kvharness.items.suites import SUITES
from kvharness.policy.interface import LoadedModel
from kvharness.records.record import Record
from tests.golden import stage
from tests.golden.borders import Borders, Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kvharness import View
    from kvharness.items.item import Item
    from kvharness.model.loaded import Runtime

RETENTION = Fraction(1, 4)
PROTECTION = Protection(sinks=3, recents=5)
#: Tokens that the context of a suite's item has.
CONTEXT = 1000
WRAPPED = (
    "ada(snapkv)",
    "caote(h2o)",
    "caote(tova)",
    "coupled(snapkv)",
    "criticalkv(snapkv)",
    "lkv-h(snapkv)",
    "squeeze(snapkv)",
)
#: On items of the suites: some of each kind that an eviction mode can run.
FEW = ("full", "oracle", "random", "h2o", "keydiff", "snapkv", "tova", "streaming-llm")
#: Answer tokens of a suite's item while decoding: each is a selection more.
_STEPS = 2
TIES = "ties"


class Ties(Policy):
    """Most scores are equal, so that positions decide."""

    def score(self, view: View) -> Tensor:
        steps = torch.div(view.positions, 7, rounding_mode="floor") % 4
        return steps.float().repeat(view.kv_heads, 1)


@dataclass(frozen=True, slots=True)
class Scene:
    """A model, an item and a contract that policies run under together."""

    name: str
    runtime: Runtime
    item: Item
    policies: tuple[str, ...]
    evict: EvictMode = EvictMode.PREFILL
    question: QuestionMode = QuestionMode.UNSEEN
    score: str = "exact"


@cache
def scenes(shake: int = 0) -> dict[str, Scene]:
    """By name; see `stage.runtimes`."""
    runtimes = stage.runtimes(shake)
    return {scene.name: scene for scene in (*_fixed(runtimes), *_of_suites(runtimes["global"]))}


def _fixed(runtimes: dict[str, Runtime]) -> Iterator[Scene]:
    """Every policy on text that no generator makes, in every way that it evicts."""
    known = registry.installed()
    every = (*(name for name, found in known.items() if not found.wraps), *WRAPPED)
    for model, runtime in runtimes.items():
        item = stage.fixed_item(runtime.encoder)
        one = replace(item, questions=item.questions[:1])
        yield Scene(f"{model} prefill", runtime, item, (*every, TIES))
        yield Scene(f"{model} decode", runtime, one, every, evict=EvictMode.DECODE)
        yield Scene(f"{model} blocks", runtime, item, every, evict=EvictMode.BLOCKS)
    runtime = runtimes["global"]
    item = stage.fixed_item(runtime.encoder)
    yield Scene("global seen", runtime, item, FEW, question=QuestionMode.SEEN)
    for mode in EvictMode:
        shown = replace(item, questions=item.questions[:1]) if mode is EvictMode.DECODE else item
        name = f"global prompt-{mode.value}"
        yield Scene(name, runtime, shown, FEW, evict=mode, question=QuestionMode.PROMPT)


def _of_suites(runtime: Runtime) -> Iterator[Scene]:
    drawing = Drawing(encoder=runtime.encoder, context=CONTEXT, seed=0, count=1)
    for suite in SUITES.values():
        (item,) = suite.draw(drawing)
        for mode in EvictMode:
            shown = _cut(item) if mode is EvictMode.DECODE else item
            name = f"{suite.name} {mode.value}"
            yield Scene(name, runtime, shown, FEW, evict=mode, score=suite.score)


def _cut(item: Item) -> Item:
    question = item.questions[0]
    short = replace(question, answer=question.answer[:_STEPS], slots=((0, _STEPS),))
    return replace(item, questions=(short,))


def observed(scene: Scene) -> dict[str, dict[str, Any]]:
    """What every cell of a scene did, by scene and policy."""
    tasks = list(make_tasks(scene))
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        borders = Borders(patch)
        results = list(run_item(make_setup(scene), scene.item, tasks))
    found: dict[str, dict[str, Any]] = {}
    for task, result in zip(tasks, results, strict=True):
        rows = borders.of.get(task.cell.policy, Rows())
        told = _described(result, rows) if isinstance(result, Record) else {"fails": result.reason}
        found[f"{scene.name} {task.policy.spec}"] = {"item": scene.item.digest, **told}
    return found


def _described(record: Record, rows: Rows) -> dict[str, Any]:
    held = record.held
    return {
        "rows": rows.described(),
        "certain": rows.certain(),
        "kept": list(record.kept),
        "bytes": record.cache_bytes,
        "held": None if held is None else [held.steps, held.least, held.most],
        "evidence": [question.evidence_kept for question in record.questions],
        "nll": [question.nll for question in record.questions],
    }


def make_setup(scene: Scene) -> Setup:
    contract = Contract(
        context=len(scene.item.context),
        protection=PROTECTION,
        question=scene.question,
        evict=scene.evict,
    )
    return Setup(
        runtime=scene.runtime,
        contract=contract,
        generate=Generate.NONE,
        score_name=scene.score,
    )


def make_tasks(scene: Scene) -> Iterator[Task]:
    """One for each policy that evicts as the scene wants it."""
    for name in scene.policies:
        loaded = _loaded(name, scene.runtime)
        if loaded.policy.capabilities.allow(scene.evict):
            column = None if loaded.slug in FIXED_ANCHORS else RETENTION
            cell = Cell(suite=scene.item.suite, policy=loaded.slug, retention=column, seed=0)
            yield Task(cell=cell, policy=loaded, key=f"{scene.name} {name}")


def _loaded(name: str, runtime: Runtime) -> LoadedPolicy:
    if name == TIES:
        return LoadedPolicy(
            spec=PolicySpec(name=name),
            policy=Ties(),
            distribution="tests",
            version="0",
            digest=str,
            parameters="{}",
        )
    (spec,) = PolicySpec.parse_list(name)
    loaded = registry.load(spec, registry.installed())
    model = LoadedModel(source=runtime.source, module=runtime.model)
    return replace(loaded, policy=loaded.policy.untrained().ready(model, 0))
