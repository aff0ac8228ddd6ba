"""What the engine generates, and what replies are worth."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from kvharness.engine.answer import Answers
from kvharness.engine.item_run import run_item
from kvharness.engine.score import mean_metrics, score_question
from kvharness.engine.task import Generate
from kvharness.items.text_metrics import text_metrics
from kvharness.records.record import Record
from tests.golden.observed import make_setup, make_tasks, scenes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvharness.items.item import Item, Question
    from kvharness.pretrained.prompt import Encoder

#: How far the two largest logits must be apart for a greedy choice to be the same everywhere:
#: without vector units instead of AVX2, logits of these models differ by 7e-6.
_CLEAR = 1e-3
#: Where and by which policies text is generated.
_SPEAKING = {
    "global prefill": ("full", "h2o", "streaming-llm", "random"),
    "global decode": ("full", "h2o", "streaming-llm"),
    "global blocks": ("keydiff",),
    "hybrid prefill": ("full", "snapkv"),
}


def generated(shake: int = 0) -> dict[str, dict[str, Any]]:
    """Replies of single cells, and how they agree with the full cache's."""
    found = {}
    for name, policies in _SPEAKING.items():
        scene = scenes(shake)[name]
        setup = replace(make_setup(scene), generate=Generate.ALL)
        for task in make_tasks(replace(scene, policies=policies)):
            with _margin(scene.runtime.model) as margins:
                (record,) = run_item(setup, scene.item, [task])
            assert isinstance(record, Record), record
            found[f"reply {name} {task.policy.spec}"] = {
                "item": scene.item.digest,
                "certain": min(margins) > _CLEAR,
                "text": [question.generated for question in record.questions],
                "agreement": [question.agreement for question in record.questions],
                "slots": [question.slot_accuracy for question in record.questions],
            }
    return found


@contextmanager
def _margin(model: torch.nn.Module) -> Iterator[list[float]]:
    """The least distance of the two largest logits, at each call of the model."""
    found: list[float] = []

    def note(_: object, __: object, output: Any) -> None:
        first, second = output.logits.float().topk(2).values.unbind(dim=-1)
        found.append(float((first - second).min()))

    handle = model.register_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def scored() -> dict[str, dict[str, Any]]:
    """What made-up replies to the first question of each item are worth."""
    items = {scene.item.suite: scene for scene in scenes().values() if "decode" not in scene.name}
    found = {}
    for suite, scene in items.items():
        question = scene.item.questions[0]
        encoder = scene.runtime.encoder
        found[f"score {suite}"] = {
            "item": scene.item.digest,
            "texts": [text_metrics(text, question) for text in _texts(question)],
            "answers": [_numbers(scene.item, number, encoder) for number in range(4)],
        }
    return found


def _texts(question: Question) -> list[str]:
    """Right, embellished, cut, turned round, mixed with what is wrong, and nothing."""
    right = question.reference
    words = right.split()
    return [
        right,
        f"  The answer is: {right.upper()}!",
        " ".join(words[: len(words) // 2 + 1]),
        " ".join(reversed(words)),
        ", ".join([*question.facts[:1], *question.decoys, "a dog"]),
        "",
    ]


def _numbers(item: Item, wrong: int, encoder: Encoder) -> dict[str, float]:
    """Metrics of all questions where every ``wrong``-th token of the choice is another one."""
    records = []
    for index, question in enumerate(item.questions):
        right = torch.tensor(question.answer)
        places = torch.arange(len(right))
        choice = torch.where(places % 4 < wrong, right + 1, right)
        mine = _answers(item, choice, 0.5 + places / 8, encoder.ids(question.reference))
        full = _answers(item, torch.where(places % 3 == 0, right + 1, right), places * 1.0, ())
        records.append(score_question(question, index, mine, full, encoder.text))
    return mean_metrics(records)


def _answers(
    item: Item, choice: torch.Tensor, surprise: torch.Tensor, text: tuple[int, ...]
) -> Answers:
    """The same answers to every question."""
    count = len(item.questions)
    return Answers(
        greedy=[choice] * count,
        logprob=[-surprise] * count,
        generated=[[*text]] * count,
        cache_bytes=0,
        seconds=0.0,
    )
