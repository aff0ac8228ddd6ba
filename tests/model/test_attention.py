from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvharness import ColumnSums, Queries
from kvharness.contract import QuestionMode
from kvharness.engine.answer import Request, score_in_full
from kvharness.errors import ModelProblem
from kvharness.items.item import Question
from kvharness.model.attention import PrefillReader, causal_output, reading
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import Kept
from kvharness.model.loaded import Runtime
from kvharness.policy.attention_maps import causal_attention
from kvharness.policy.observation.column_sums import column_sums
from kvharness.policy.observation.reading import AttentionCall
from kvharness.pretrained.find import find_model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.model.prefilled import Prefilled
    from tests.conftest import MakePair

TOKENS = 40
WINDOW = 12
SHARED = {
    "vocab_size": 1502,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
}
SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen3": {},
    "qwen2-sliding": {"model_type": "qwen2", "use_sliding_window": True, **SLIDING},
    "phi3": {},
    "gemma3": {"model_type": "gemma3_text", "query_pre_attn_scalar": 20, **SLIDING},
}
EACH = pytest.mark.parametrize("name", CONFIGS)


def make_config(model_type: str, **changes: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type, **{**SHARED, **changes})


@pytest.fixture(scope="module")
def pairs(make_pair: MakePair) -> dict[str, tuple[PreTrainedModel, Runtime]]:
    return {
        name: make_pair(make_config(**{"model_type": name, **changes}))
        for name, changes in CONFIGS.items()
    }


def sliding_layers(name: str) -> set[int]:
    return {0} if name in {"gemma3", "qwen2-sliding"} else set()


def draw_ids(count: int = TOKENS, seed: int = 0) -> list[int]:
    drawn = torch.randint(2, 1502, (count,), generator=torch.Generator().manual_seed(seed))
    return [int(each) for each in drawn]


def observed_logits(runtime: Runtime, ids: list[int], *watches: Any) -> Tensor:
    positions = torch.arange(len(ids))[None]
    with torch.inference_mode(), reading(PrefillReader(watches)):
        output = runtime.model(
            input_ids=torch.tensor([ids]), position_ids=positions, use_cache=False
        )
    logits: Tensor = output.logits
    return logits


def eager_attention(plain: PreTrainedModel, ids: list[int]) -> list[Tensor]:
    """transformers' own attention maps, ``[H, n, n]`` a layer."""
    before = plain.config._attn_implementation
    plain.set_attn_implementation("eager")
    with torch.inference_mode():
        output = plain(torch.tensor([ids]), output_attentions=True, use_cache=False)
    plain.set_attn_implementation(before)
    return [each[0] for each in output.attentions]


@EACH
@pytest.mark.parametrize("count", [1, WINDOW, TOKENS])
def test_an_observed_model_computes_what_transformers_does(
    name: str, count: int, pairs: dict[str, tuple[PreTrainedModel, Runtime]]
) -> None:
    plain, runtime = pairs[name]
    assert plain.config._attn_implementation == "sdpa"
    ids = draw_ids(count)
    with torch.inference_mode():
        expected = plain(torch.tensor([ids]), use_cache=False).logits
    bare = observed_logits(runtime, ids)
    torch.testing.assert_close(bare, expected, rtol=1e-4, atol=1e-4)
    # Looking changes nothing.
    seen: list[AttentionCall] = []
    watched = observed_logits(runtime, ids, seen.append)
    assert torch.equal(watched, bare)
    assert {call.layer for call in seen} == {0, 1} - sliding_layers(name)
    assert all(call.window is None for call in seen)


@EACH
def test_keys_and_values_are_those_of_transformers_cache(
    name: str, pairs: dict[str, tuple[PreTrainedModel, Runtime]]
) -> None:
    plain, runtime = pairs[name]
    ids = draw_ids()
    prefilled, seconds = prefill(runtime, ids)
    assert prefilled.tokens == TOKENS
    assert seconds > 0
    with torch.inference_mode():
        cached = plain(torch.tensor([ids]), use_cache=True).past_key_values.layers
    sliding = sliding_layers(name)
    assert set(prefilled.sliding) == sliding
    assert list(prefilled.layers) == [layer for layer in (0, 1) if layer not in sliding]
    for index, layer in enumerate(cached):
        if index in sliding:
            ours = prefilled.sliding[index]
            assert ours.window == ours.keys.shape[1] == WINDOW
            held = layer.keys.shape[2]  # transformers keeps window - 1 of them
            assert held <= WINDOW
            pair = (ours.keys[:, -held:], ours.values[:, -held:])
        else:
            pair = (prefilled.layers[index].keys, prefilled.layers[index].values)
        torch.testing.assert_close(pair[0], layer.keys[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(pair[1], layer.values[0], rtol=1e-4, atol=1e-4)


def test_a_sliding_layer_keeps_a_context_that_is_shorter_than_its_window(
    pairs: dict[str, tuple[PreTrainedModel, Runtime]],
) -> None:
    prefilled, _ = prefill(pairs["gemma3"][1], draw_ids(5))
    assert prefilled.sliding[0].keys.shape[1] == 5


@EACH
@pytest.mark.parametrize("window", [1, 7, 100])
def test_queries_and_sums_reproduce_the_attention_of_transformers(
    name: str, window: int, pairs: dict[str, tuple[PreTrainedModel, Runtime]]
) -> None:
    plain, runtime = pairs[name]
    ids = draw_ids()
    prefilled, _ = prefill(runtime, ids, frozenset({Queries(window), ColumnSums()}))
    maps = eager_attention(plain, ids)
    for index, layer in prefilled.layers.items():
        queries, sums = layer.observed[Queries(window)], layer.observed[ColumnSums()]
        # Only post-RoPE queries of the last tokens give back the last rows.
        rows = causal_attention(queries, layer.keys, layer.scaling)
        assert rows.shape[1] == min(window, TOKENS)
        torch.testing.assert_close(rows, maps[index][:, -window:], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(sums, maps[index].sum(dim=1), rtol=1e-3, atol=1e-4)


def test_what_nobody_needs_is_not_kept(runtime: Runtime) -> None:
    prefilled, _ = prefill(runtime, draw_ids())
    for layer in prefilled.layers.values():
        assert layer.observed == {}


def test_what_is_kept_does_not_depend_on_what_else_is(runtime: Runtime) -> None:
    alone, _ = prefill(runtime, draw_ids(), frozenset({Queries(3)}))
    wide, _ = prefill(runtime, draw_ids(), frozenset({Queries(30), ColumnSums()}))
    for few, many in zip(alone.layers.values(), wide.layers.values(), strict=True):
        assert torch.equal(few.observed[Queries(3)], many.observed[Queries(30)][:, -3:])
        assert torch.equal(few.keys, many.keys)
        assert torch.equal(few.values, many.values)


def naive_sums(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """The whole matrix at once, in float64."""
    wide = key.double().repeat_interleave(len(query) // len(key), dim=0)
    logits = query.double() @ wide.transpose(1, 2) * scaling
    tokens = query.shape[1]
    logits[:, torch.ones(tokens, tokens, dtype=torch.bool).triu(1)] = float("-inf")
    return logits.softmax(dim=-1).sum(dim=1).float()


@settings(max_examples=25)
@given(
    tokens=st.integers(1, 40),
    kv_heads=st.integers(1, 2),
    group=st.integers(1, 3),
    chunk=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_column_sums_equal_the_full_matrix_whatever_the_chunk(
    *, tokens: int, kv_heads: int, group: int, chunk: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(kv_heads * group, tokens, 8, generator=generator)
    key = torch.randn(kv_heads, tokens, 8, generator=generator)
    sums = column_sums(query, key, 0.6, chunk=chunk)
    torch.testing.assert_close(sums, naive_sums(query, key, 0.6), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sums.sum(dim=-1), torch.full((kv_heads * group,), float(tokens)))


def test_column_sums_over_more_tokens_than_a_chunk() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 600, 8, generator=generator).bfloat16()
    key = torch.randn(1, 600, 8, generator=generator).bfloat16()
    expected = naive_sums(query, key, 0.3)
    torch.testing.assert_close(column_sums(query, key, 0.3), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=25)
@given(
    tokens=st.integers(1, 16),
    window=st.none() | st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_causal_output_equals_loops(tokens: int, window: int | None, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 4, tokens, 4, generator=generator)
    key = torch.randn(1, 2, tokens, 4, generator=generator)
    value = torch.randn(1, 2, tokens, 3, generator=generator)
    call = AttentionCall(layer=0, query=query, key=key, value=value, scaling=0.7, window=window)
    got = causal_output(call)
    for head in range(4):
        for i in range(tokens):
            seen = [j for j in range(i + 1) if window is None or i - j < window]
            weights = (0.7 * key[0, head // 2, seen] @ query[0, head, i]).softmax(dim=0)
            expected = weights @ value[0, head // 2, seen]
            torch.testing.assert_close(got[0, head, i], expected, rtol=1e-4, atol=1e-5)


def refuse_to_run(runtime: Runtime) -> None:
    with pytest.raises(RuntimeError, match=r"within kvharness.model.attention.reading\(\)"):
        runtime.model(torch.tensor([[5, 6]]), use_cache=False)


def test_outside_reading_an_observed_model_refuses_to_run(runtime: Runtime) -> None:
    refuse_to_run(runtime)


class Failing:
    def attend(self, call: AttentionCall) -> Tensor:
        raise ArithmeticError(f"layer {call.layer}")


def test_a_reader_that_fails_does_not_stay(runtime: Runtime) -> None:
    with pytest.raises(ArithmeticError, match="layer 0"), reading(Failing()):
        runtime.model(torch.tensor([[5, 6]]), use_cache=False)
    refuse_to_run(runtime)
    prefill(runtime, draw_ids())
    refuse_to_run(runtime)


def test_readers_nest(runtime: Runtime) -> None:
    ids = torch.tensor([[5, 6]])
    outer, inner = PrefillReader(), PrefillReader()
    with torch.inference_mode(), reading(outer):
        with reading(inner):
            runtime.model(ids, use_cache=False)
        assert not outer.layers
        runtime.model(ids, use_cache=False)
    assert set(outer.layers) == set(inner.layers) == {0, 1}


def test_a_reader_is_of_its_thread(runtime: Runtime) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            runtime.model(torch.tensor([[5, 6]]), use_cache=False)
        except RuntimeError as error:
            errors.append(error)

    with reading(PrefillReader()):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert len(errors) == 1


def test_softcaps_are_refused(make_pair: MakePair) -> None:
    _, runtime = make_pair(make_config("gemma2", attn_logit_softcapping=50.0))
    with pytest.raises(ModelProblem, match="Gemma2Attention uses softcap in attention"):
        prefill(runtime, draw_ids())


def test_a_model_that_only_slides_is_refused(make_pair: MakePair) -> None:
    _, runtime = make_pair(make_config("mistral", sliding_window=WINDOW))
    with pytest.raises(ModelProblem, match="every attention layer of made slides over a window"):
        prefill(runtime, draw_ids())


def test_an_architecture_with_its_own_attention_is_refused(make_pair: MakePair) -> None:
    with pytest.raises(ModelProblem, match="BloomForCausalLM cannot be observed"):
        make_pair(make_config("bloom", n_head=4, n_layer=1))


def everything(prefilled: Prefilled) -> Kept:
    heads = next(iter(prefilled.layers.values())).keys.shape[0]
    return Kept(mask=torch.ones(len(prefilled.layers), heads, TOKENS, dtype=torch.bool))


UNUSUAL: dict[str, dict[str, Any]] = {
    # Chunked attention, which no attention call mentions.
    "llama4_text": {
        "attention_chunk_size": 16,
        "num_local_experts": 2,
        "intermediate_size_mlp": 48,
        "num_hidden_layers": 4,
    },
    # Linear attention layers, whose state is not in keys and values.
    "qwen3_next": {
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "num_experts": 0,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
    },
    # Two attention calls a layer.
    "diffllama": {},
    "cohere2": {"num_hidden_layers": 4, "sliding_window": WINDOW},
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_model_is_read_exactly_or_refused(
    name: str, tmp_path: Path, tokenizer: Any
) -> None:
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = AutoModelForCausalLM.from_config(make_config(name, **UNUSUAL[name]))
    plain.float().eval().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    context, lead, answer = draw_ids(), draw_ids(6, seed=1), draw_ids(3, seed=2)
    question = Question(
        text="",
        question=tuple(lead[:3]),
        tail=tuple(lead[3:]),
        answer=tuple(answer),
        slots=((0, 3),),
        reference="",
        references=("",),
    )
    try:
        runtime = Runtime.load(find_model(str(tmp_path)), device="cpu", dtype="float32")
        prefilled, _ = prefill(runtime, context)
        request = Request(
            context=prefilled, questions=(question,), layout=QuestionMode.UNSEEN, generate=0
        )
        answers, _ = score_in_full(runtime, request, everything(prefilled), observe=False)
    except ModelProblem:
        return
    with torch.inference_mode():
        logits = plain(torch.tensor([context + lead + answer]), use_cache=False).logits[0]
    rows = logits[TOKENS + 5 : TOKENS + 8].log_softmax(dim=-1)
    expected = rows.gather(1, torch.tensor(answer)[:, None])[:, 0]
    torch.testing.assert_close(answers.logprob[0], expected, rtol=0, atol=1e-3)
