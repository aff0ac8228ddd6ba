from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness import (
    ColumnSums,
    Ends,
    Policy,
    Queries,
    RandomTokens,
    Repeat,
    Text,
    Trace,
    probe_attention,
)
from kvharness.contract import QuestionMode
from kvharness.engine.answer import score_in_full
from kvharness.engine.item_run import run_item
from kvharness.engine.task import Failure
from kvharness.errors import ModelProblem
from kvharness.model import context_reading
from kvharness.model import probe_pass as probing_module
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import Kept
from kvharness.policy.observation.probe import Material, Probe
from kvharness.records.record import Record
from tests.conftest import tiny_config
from tests.engine.test_item_run import (
    CONTRACT,
    draw_ids,
    make_item,
    make_question,
    make_setup,
    named,
    records_of,
    scripted,
)
from tests.model.test_attention import CONFIGS, make_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness import View
    from kvharness.engine.answer import Answers
    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from kvharness.policy.observation.part import Part
    from tests.conftest import MakePair

TOKENS = 24
CONTEXT = draw_ids(TOKENS, 0)
ENDS = Ends(prefix=3, suffix=4)
LONG = Ends(prefix=4, suffix=28)
PROBES = (ENDS, RandomTokens(count=5), Text(text="a purple harbour", count=6), Repeat(chunk=10))
ALL = frozenset(PROBES)


def trace_of(prefilled: Prefilled) -> Trace:
    layers = tuple(prefilled.layers.values())
    return Trace(layers=layers, positions=torch.arange(TOKENS))


def parts_of(runtime: Runtime, probe: Probe) -> list[Part]:
    vocabulary = int(runtime.model.config.vocab_size)
    return probe.parts(Material(context=CONTEXT, encoder=runtime.encoder, vocabulary=vocabulary))


def maps(plain: PreTrainedModel, part: Part, *, start: int = TOKENS) -> list[Tensor]:
    """What transformers says the part's tokens pay to context and part, ``[H, m, n + m]``."""
    count = len(part.ids)
    positions = [*range(TOKENS), *range(start, start + count)]
    before = plain.config._attn_implementation
    plain.set_attn_implementation("eager")
    with torch.inference_mode():
        output = plain(
            torch.tensor([[*CONTEXT, *part.ids]]),
            # Without it, positions that jump are taken for the next of several packed texts.
            attention_mask=torch.ones(1, TOKENS + count, dtype=torch.int64),
            position_ids=torch.tensor([positions]),
            output_attentions=True,
            use_cache=False,
        )
    plain.set_attn_implementation(before)
    return [each[0, :, TOKENS:] for each in output.attentions]


@pytest.mark.parametrize("name", CONFIGS)
def test_probes_attend_as_transformers_does_from_context_and_probe(
    name: str, make_pair: MakePair
) -> None:
    plain, runtime = make_pair(make_config(**{"model_type": name, **CONFIGS[name]}))
    prefilled, _ = prefill(runtime, CONTEXT, ALL)
    for view, layer in zip(trace_of(prefilled).views, prefilled.layers, strict=True):
        for probe in PROBES:
            read, parts = view.probed(probe), parts_of(runtime, probe)
            assert len(read) == len(parts) == (3 if isinstance(probe, Repeat) else 1)
            for probed, part in zip(read, parts, strict=True):
                assert (probed.first, probed.last) == (part.first, part.last)
                (got,) = probe_attention(view, probed)
                due = maps(plain, part)[layer][..., :TOKENS]
                torch.testing.assert_close(got, due, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("offset", "start"), [(-5, TOKENS - 5), (9, TOKENS + 9), (-1000, 0)])
def test_an_offset_moves_positions_and_not_what_is_seen(
    offset: int, start: int, make_pair: MakePair
) -> None:
    plain, runtime = make_pair(tiny_config())
    probe, natural = replace(ENDS, offset=offset), ENDS
    needs = frozenset({probe, natural})
    prefilled, _ = prefill(runtime, CONTEXT, needs)
    (part,) = parts_of(runtime, probe)
    both = maps(plain, part, start=start), maps(plain, part)
    for view, due, behind in zip(trace_of(prefilled).views, *both, strict=True):
        (moved,) = probe_attention(view, view.probed(probe)[0])
        torch.testing.assert_close(moved, due[..., :TOKENS], rtol=1e-3, atol=1e-5)
        assert (moved - behind[..., :TOKENS]).abs().max() > 0.01


@pytest.mark.parametrize("block", [1, 7, 8])
def test_a_part_is_read_in_blocks(
    block: int, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = prefill(runtime, CONTEXT, ALL)
    monkeypatch.setattr(probing_module, "_BLOCK", block)
    pieces, _ = prefill(runtime, CONTEXT, ALL)
    for one, other in zip(whole.layers.values(), pieces.layers.values(), strict=True):
        for (name, tensor), (same, again) in zip(one.tensors(), other.tensors(), strict=True):
            assert name == same
            torch.testing.assert_close(tensor, again, rtol=1e-3, atol=1e-4)


def answers(runtime: Runtime, prefilled: Prefilled) -> Answers:
    from kvharness.engine.answer import Request

    request = Request(
        context=prefilled, questions=make_item().questions, layout=QuestionMode.UNSEEN, generate=0
    )
    everything = Kept(mask=prefilled.all_kept())
    return score_in_full(runtime, request, everything, observe=False)[0]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_probe_leaves_no_trace(name: str, make_pair: MakePair) -> None:
    _, runtime = make_pair(make_config(**{"model_type": name, **CONFIGS[name]}))
    needs = frozenset({Queries(5), ColumnSums()})
    bare, _ = prefill(runtime, CONTEXT, needs)
    probed, _ = prefill(runtime, CONTEXT, needs.union(ALL))
    assert bare.sliding.keys() == probed.sliding.keys()
    for index, sliding in bare.sliding.items():
        assert torch.equal(sliding.keys, probed.sliding[index].keys)
        assert torch.equal(sliding.values, probed.sliding[index].values)
    for index, layer in bare.layers.items():
        after = dict(probed.layers[index].narrowed(needs).tensors())
        assert all(torch.equal(tensor, after[key]) for key, tensor in layer.tensors())
        assert after.keys() == dict(layer.tensors()).keys()
    before, behind = answers(runtime, bare), answers(runtime, probed)
    for one, other in zip(before.logprob, behind.logprob, strict=True):
        assert torch.equal(one, other)


class Passes:
    """Tokens of each pass through the decoder."""

    def __init__(self, runtime: Runtime) -> None:
        self.tokens: list[int] = []
        self._hook = runtime.model.get_decoder().register_forward_pre_hook(
            self._note, with_kwargs=True
        )

    def _note(self, _: Any, args: Any, kwargs: Any) -> None:
        del args
        self.tokens.append(int(kwargs["input_ids"].shape[1]))

    def close(self) -> None:
        self._hook.remove()


@pytest.fixture
def passes(runtime: Runtime) -> Iterator[Passes]:
    counter = Passes(runtime)
    yield counter
    counter.close()


def test_nothing_is_read_unless_asked_and_equal_probes_once(
    runtime: Runtime, passes: Passes
) -> None:
    prefill(runtime, CONTEXT, frozenset({Queries(3), ColumnSums()}))
    assert passes.tokens == [TOKENS]
    same = frozenset({Ends(prefix=3, suffix=4)})
    prefill(runtime, CONTEXT, same.union(frozenset({ENDS})))
    assert passes.tokens == [TOKENS, TOKENS, 7]


def test_policies_of_one_probe_share_its_pass(runtime: Runtime, passes: Passes) -> None:
    def passed(*tasks: Any) -> list[int]:
        passes.tokens.clear()
        records_of(run_item(make_setup(runtime), make_item(), list(tasks)))
        return list(passes.tokens)

    bare = passed(named("snapkv"))
    asking = [scripted(Asking(), "one"), scripted(Asking(), "two"), named("snapkv")]
    shared = passed(*asking)
    assert shared[:2] == [40, 7]
    assert sum(tokens == 7 for tokens in shared) == 1 + sum(tokens == 7 for tokens in bare)


@dataclass(frozen=True)
class Asking(Policy):
    """Scores by what probes pay, as a stranger's policy would."""

    probe: Probe = ENDS
    beside: tuple[Probe, ...] = ()

    @property
    def needs(self) -> frozenset[Probe]:
        return frozenset({self.probe, *self.beside})

    def score(self, view: View) -> Tensor:
        blocks = [rows for part in view.probed(self.probe) for rows in probe_attention(view, part)]
        paid = torch.cat(blocks, dim=1).sum(dim=1)
        scores: Tensor = paid.unflatten(0, (view.kv_heads, -1)).sum(dim=1)
        return scores


def test_a_record_counts_the_seconds_of_its_own_probes(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, now = probing_module.read_after, [0.0]

    def slow(*given: Any) -> Any:
        now[0] += 1.0
        return real(*given)

    monkeypatch.setattr(context_reading, "read_after", slow)
    monkeypatch.setattr(type(runtime), "clock", lambda _: now[0])
    tasks = [
        scripted(Asking(), "one"),
        scripted(Asking(), "half", Fraction(1, 2)),
        scripted(Asking(beside=(Ends(prefix=0, suffix=32),)), "more"),
        named("snapkv"),
    ]
    found = {
        each.policy: each.seconds
        for each in records_of(run_item(make_setup(runtime), make_item(), tasks))
    }
    assert {name: each.select for name, each in found.items()} == {
        "one": 1.0,
        "half": 1.0,
        "more": 2.0,
        "snapkv": 0.0,
    }
    assert all(each.prefill == 0.0 for each in found.values())


def test_no_probe_sees_question_or_answer(runtime: Runtime) -> None:
    """Other questions: the same tokens are kept; only a seen question is part of the context."""
    other = make_item(make_question(1, answer=draw_ids(4, 99)))
    asked = make_item(make_question(0))
    assert (asked.context, asked.digest) != (other.context, other.digest)
    assert asked.context == other.context
    tasks = [scripted(Asking(probe), f"probe-{number}") for number, probe in enumerate(PROBES)]
    for contract, alike in (
        (CONTRACT, True),
        (replace(CONTRACT, question=QuestionMode.SEEN), False),
    ):
        kept = [
            [record.mask_digest for record in records_of(run_item(setup, item, tasks))]
            for setup, item in ((make_setup(runtime, contract), each) for each in (asked, other))
        ]
        assert [one == two for one, two in zip(*kept, strict=True)] == [alike] * len(PROBES)


def test_a_probe_past_the_models_window_fails_for_its_policies_only(make_pair: MakePair) -> None:
    _, runtime = make_pair(tiny_config(max_position_embeddings=50))
    tasks = [named("snapkv"), scripted(Asking(LONG), "long"), scripted(Asking(), "short")]
    found = list(run_item(make_setup(runtime), make_item(make_question(0)), tasks))
    assert [type(each) for each in found] == [Record, Failure, Record]
    assert isinstance(found[1], Failure)
    assert found[1].reason == (
        "Ends(offset=0, prefix=4, suffix=28) cannot be observed: with it the context takes 72 "
        "tokens, and made was made for at most 50; lower --kv-context by 22 or more"
    )


@dataclass(frozen=True, kw_only=True)
class Broken(Probe):
    def parts(self, material: Material) -> list[Part]:
        raise TypeError(f"{len(material.context)} is odd")


def test_a_probe_that_cannot_be_made_fails_for_its_policies_only(runtime: Runtime) -> None:
    tasks = [named("snapkv"), scripted(Asking(Broken()), "broken"), scripted(Asking(), "whole")]
    found = list(run_item(make_setup(runtime), make_item(make_question(0)), tasks))
    assert [type(each) for each in found] == [Record, Failure, Record]
    assert isinstance(found[1], Failure)
    assert "Broken(offset=0) cannot be observed: TypeError: 40 is" in found[1].reason


def test_a_lack_of_memory_is_a_problem_of_the_probe(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(probing_module, "_read_part", lacking)
    prefilled, _ = prefill(runtime, CONTEXT, ALL)
    assert prefilled.observing_seconds(frozenset()) == 0
    with pytest.raises(ModelProblem, match="out of memory reading a probe of 7 tokens after 24"):
        prefilled.observing_seconds(frozenset({ENDS}))


class Tampering(Asking):
    def score(self, view: View) -> Tensor:
        scores = super().score(view)
        view.probed(ENDS)[0].queries.zero_()
        return scores


def test_writing_into_a_probes_tensors_is_found_out(runtime: Runtime) -> None:
    tasks = [scripted(Tampering(), "bad"), scripted(Asking(), "good")]
    bad, good = run_item(make_setup(runtime), make_item(), tasks)
    assert isinstance(bad, Failure)
    assert "changed the tensors of its view in place" in bad.reason
    (alone,) = records_of(run_item(make_setup(runtime), make_item(), [tasks[1]]))
    assert isinstance(good, Record)
    assert good.mask_digest == alone.mask_digest
