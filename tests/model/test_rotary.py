from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from kvharness.engine.decode import Prompt, force
from kvharness.errors import ModelProblem
from kvharness.model.attention import PrefillReader, reading
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import BatchCache, Kept
from kvharness.model.rotary import Rotation
from kvharness.policy.view import Positions

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness.model.loaded import Runtime
    from tests.conftest import MakePair

TOKENS = 24
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 64,
}
PLAIN: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama3-scaled": {"model_type": "llama", "rope_parameters": LLAMA3},
    # Its rotary embedding multiplies by an attention factor that is not 1.
    "yarn": {"model_type": "llama", "rope_parameters": YARN},
    "phi3": {},
    "phi3-partial": {
        "model_type": "phi3",
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
        },
    },
    "qwen3": {},
}
#: Rotary embeddings with another layout, sign, base a layer, or none in some layers.
UNUSUAL: dict[str, dict[str, Any]] = {
    "cohere": {},
    "glm": {},
    "ernie4_5": {},
    "nanochat": {},
    "smollm3": {"no_rope_layer_interval": 2},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen2-sliding": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def make(make_pair: MakePair, name: str, changes: dict[str, Any]) -> Runtime:
    from transformers import AutoConfig

    values = {
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
        "model_type": name,
        **changes,
    }
    return make_pair(AutoConfig.for_model(**values))[1]


def keys_at(runtime: Runtime, positions: Tensor) -> list[Tensor]:
    """Keys of every layer, computed from scratch with the same tokens at these positions."""
    ids = torch.arange(5, 5 + TOKENS)[None]
    reader = PrefillReader()
    with torch.inference_mode(), reading(reader):
        runtime.model.get_decoder()(input_ids=ids, position_ids=positions[None], use_cache=False)
    return [layer.keys for _, layer in sorted(reader.layers.items())]


def moved(runtime: Runtime, keys: Tensor, difference: Tensor) -> Tensor:
    with torch.inference_mode():
        return Rotation(runtime.model).move(keys, difference.expand(len(keys), -1))


@pytest.fixture(scope="module", params=PLAIN)
def plain(request: pytest.FixtureRequest, make_pair: MakePair) -> Runtime:
    return make(make_pair, request.param, PLAIN[request.param])


def test_the_configurations_are_what_they_say(make_pair: MakePair) -> None:
    made = {name: make(make_pair, name, PLAIN[name]) for name in PLAIN}
    rotary = {name: runtime.model.get_decoder().rotary_emb for name, runtime in made.items()}
    assert rotary["llama3-scaled"].rope_type == "llama3"
    assert not torch.equal(rotary["llama3-scaled"].inv_freq, rotary["llama"].inv_freq)
    assert rotary["yarn"].attention_scaling > 1
    assert len(rotary["phi3-partial"].inv_freq) == 2
    assert len(rotary["phi3"].inv_freq) == 4


def test_moving_equals_rotating_from_scratch(plain: Runtime) -> None:
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randint(0, 200, (TOKENS,), generator=generator) for _ in range(2))
    # Deeper layers depend on the positions of other tokens too.
    before, after = keys_at(plain, old)[0], keys_at(plain, new)[0]
    assert not torch.allclose(before, after, atol=0.1)
    torch.testing.assert_close(moved(plain, before, new - old), after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [1, 7, 100])
def test_moving_all_tokens_alike_moves_the_keys_of_every_layer(plain: Runtime, shift: int) -> None:
    order = torch.arange(TOKENS)
    for before, after in zip(keys_at(plain, order), keys_at(plain, order + shift), strict=True):
        difference = torch.full((TOKENS,), shift)
        torch.testing.assert_close(moved(plain, before, difference), after, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(moved(plain, after, -difference), before, rtol=1e-3, atol=1e-3)


def test_moving_is_multiplication_by_a_complex_phase(make_pair: MakePair) -> None:
    runtime = make(make_pair, "llama", {})
    keys = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    difference = torch.tensor([[0, 1, -3, 50, -50], [2, 0, 0, 7, 1]])
    angles = difference[..., None] * 10_000.0 ** (-torch.arange(4) / 4)
    turned = torch.complex(keys[..., :4], keys[..., 4:]) * torch.polar(torch.ones(()), angles)
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    got = Rotation(runtime.model).move(keys, difference)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_difference_of_zero_changes_nothing(plain: Runtime, dtype: torch.dtype) -> None:
    keys = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    got = moved(plain, keys, torch.zeros(6, dtype=torch.int64))
    assert got.dtype == dtype
    assert torch.equal(got, keys)


def test_moving_there_and_on_is_moving_at_once(plain: Runtime) -> None:
    keys = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    one, two = torch.arange(6) * 3, torch.arange(6) - 4
    stepwise = moved(plain, moved(plain, keys, one), two)
    torch.testing.assert_close(stepwise, moved(plain, keys, one + two), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "rope"), [("dynamic", DYNAMIC), ("longrope", LONGROPE)], ids=["dynamic", "longrope"]
)
def test_frequencies_that_depend_on_the_length_are_refused(
    name: str, rope: dict[str, Any], make_pair: MakePair
) -> None:
    runtime = make(make_pair, "llama", {"rope_parameters": rope})
    with pytest.raises(ModelProblem, match=rf"LlamaForCausalLM \({name}\) has no rotary") as caught:
        _ = runtime.rotation
    assert "policies with compact positions cannot run on it" in str(caught.value)


def test_a_model_without_rotary_embedding_is_refused(make_pair: MakePair) -> None:
    changes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    with pytest.raises(ModelProblem, match="GPT2LMHeadModel"):
        _ = make(make_pair, "gpt2", changes).rotation


@pytest.mark.parametrize("name", [*PLAIN, *UNUSUAL])
def test_a_compact_suffix_reads_like_the_same_suffix_in_place_or_is_refused(
    name: str, make_pair: MakePair
) -> None:
    # Rotary attention depends on distances alone, and in a suffix no distance changes.
    runtime = make(make_pair, name, {**PLAIN, **UNUSUAL}[name])
    context, _ = prefill(runtime, range(5, 5 + TOKENS))
    mask = torch.zeros(len(context.layers), 2, TOKENS, dtype=torch.bool)
    mask[..., TOKENS // 2 :] = True
    prompt = Prompt(lead=(7, 8, 9), answer=(10, 11, 12))
    try:
        cells = [Kept(mask=mask), Kept(mask=mask, positions=Positions.COMPACT)]
        cache = BatchCache(context, cells, room=8, rotation=runtime.rotation)
        in_place, compact = force(runtime.model, cache, [prompt], most_tokens=100).logprob
    except ModelProblem:
        assert name in UNUSUAL
        return
    torch.testing.assert_close(compact[0], in_place[0], rtol=0, atol=1e-3)
