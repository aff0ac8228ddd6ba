from __future__ import annotations

from dataclasses import fields
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.engine.decode import Prompt, force
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import BatchCache, Kept, Segment
from kvharness.policy.view import Positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.model.loaded import Runtime
    from kvharness.model.prefilled import Prefilled
    from tests.conftest import MakePair

LAYERS, HEADS, KV_HEADS, SIZE = 2, 4, 2, 16
TOKENS, ROOM = 20, 24
PROMPT = Prompt(lead=(40, 41, 42, 43), answer=(44, 45, 46))
MANY = 10_000


def draw_ids(count: int, seed: int) -> list[int]:
    drawn = torch.randint(2, 1500, (count,), generator=torch.Generator().manual_seed(seed))
    return [int(each) for each in drawn]


CONTEXT = draw_ids(TOKENS, seed=0)


class NaiveLlama:
    """The tiny Llama written out token by token, for any keep mask and any positions."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.weights: dict[str, Tensor] = model.state_dict()
        self.epsilon: float = model.config.rms_norm_eps
        #: Largest attention of a prompt token to each context token: ``[H, n]`` a layer.
        self.received: list[Tensor] = []

    def logprobs(
        self, context: Sequence[int], prompt: Prompt, mask: Tensor, *, compact: bool = False
    ) -> Tensor:
        """Log-probabilities ``[answer, vocabulary]`` after evicting from the context's cache."""
        tokens = len(context)
        base = int(mask[0, 0].sum()) if compact else tokens
        old = self.weights["model.embed_tokens.weight"][list(context)]
        new = self.weights["model.embed_tokens.weight"][list(prompt.tokens)]
        self.received = []
        for layer in range(LAYERS):
            old_queries, old_keys, old_values = self._heads(layer, old)
            queries, keys, values = self._heads(layer, new)
            everything = torch.ones(KV_HEADS, tokens, dtype=torch.bool)
            order = [list(range(tokens))] * KV_HEADS
            places = self._places(mask[layer], compact=compact)
            before = torch.stack(
                [
                    self._attend(layer, i, old_queries, (old_keys, old_values), order, everything)
                    for i in range(tokens)
                ]
            )
            self.received.append(torch.zeros(HEADS, tokens))
            joined = torch.cat((old_keys, keys)), torch.cat((old_values, values))
            after = torch.stack(
                [
                    self._attend(
                        layer,
                        tokens + i,
                        torch.cat((old_queries, queries)),
                        joined,
                        [[*place, *range(base, base + len(new))] for place in places],
                        mask[layer],
                    )
                    for i in range(len(new))
                ]
            )
            old, new = self._finish(layer, old, before), self._finish(layer, new, after)
        hidden = self._norm(new, "model.norm.weight")[len(prompt.lead) - 1 :]
        logits: Tensor = hidden @ self.weights["lm_head.weight"].T
        return logits.log_softmax(dim=-1)

    @staticmethod
    def _places(mask: Tensor, *, compact: bool) -> list[list[int]]:
        """Position of each context token, by KV head; evicted tokens have none to care for."""
        if not compact:
            return [list(range(mask.shape[1])) for _ in mask]
        return [(row.cumsum(dim=0) - 1).tolist() for row in mask]

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale = (x.pow(2).mean(dim=-1, keepdim=True) + self.epsilon).rsqrt()
        return x * scale * self.weights[name]

    def _heads(self, layer: int, x: Tensor) -> list[Tensor]:
        prefix = f"model.layers.{layer}"
        x = self._norm(x, f"{prefix}.input_layernorm.weight")
        names = ("q_proj", "k_proj", "v_proj")
        flat = [x @ self.weights[f"{prefix}.self_attn.{name}.weight"].T for name in names]
        return [each.view(len(x), -1, SIZE) for each in flat]

    @staticmethod
    def _rotated(vector: Tensor, position: int) -> Tensor:
        half = SIZE // 2
        angles = position * 10_000.0 ** (-torch.arange(half) / half)
        turned = torch.complex(vector[:half], vector[half:]) * torch.polar(torch.ones(half), angles)
        return torch.cat((turned.real, turned.imag))

    def _attend(
        self,
        layer: int,
        index: int,
        queries: Tensor,
        cached: tuple[Tensor, Tensor],
        places: list[list[int]],
        mask: Tensor,
    ) -> Tensor:
        """Output of the token at ``index``, which sees kept context and new tokens up to itself."""
        keys, values = cached
        tokens = mask.shape[1]
        out = []
        for head in range(HEADS):
            kv = head // (HEADS // KV_HEADS)
            seen = [j for j in range(index + 1) if j >= tokens or mask[kv, j]]
            query = self._rotated(queries[index, head], places[kv][index])
            products = torch.stack(
                [query @ self._rotated(keys[j, kv], places[kv][j]) for j in seen]
            )
            weights = (products / SIZE**0.5).softmax(dim=0)
            out.append(weights @ values[seen, kv])
            if index >= tokens:
                best = self.received[layer]
                for j, weight in zip(seen, weights, strict=True):
                    if j < tokens:
                        best[head, j] = max(best[head, j], weight)
        return torch.cat(out)

    def _finish(self, layer: int, x: Tensor, attended: Tensor) -> Tensor:
        prefix = f"model.layers.{layer}"
        weights = self.weights
        x = x + attended @ weights[f"{prefix}.self_attn.o_proj.weight"].T
        y = self._norm(x, f"{prefix}.post_attention_layernorm.weight")
        gate = torch.nn.functional.silu(y @ weights[f"{prefix}.mlp.gate_proj.weight"].T)
        up = y @ weights[f"{prefix}.mlp.up_proj.weight"].T
        return x + (gate * up) @ weights[f"{prefix}.mlp.down_proj.weight"].T


def ragged(seed: int, *, tokens: int = TOKENS, least: int = 0) -> Tensor:
    """Every head of every layer keeps another number of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(least, tokens + 1, (LAYERS, KV_HEADS, 1), generator=generator)
    scores = torch.rand(LAYERS, KV_HEADS, tokens, generator=generator)
    return scores.argsort(dim=-1).argsort(dim=-1) < counts


def uniform(seed: int, kept: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(LAYERS, KV_HEADS, TOKENS, generator=generator)
    return scores.argsort(dim=-1).argsort(dim=-1) < kept


ALL = torch.ones(LAYERS, KV_HEADS, TOKENS, dtype=torch.bool)


@pytest.fixture(scope="module")
def context(runtime: Runtime) -> Prefilled:
    return prefill(runtime, CONTEXT)[0]


@pytest.fixture(scope="module")
def naive(plain_model: PreTrainedModel) -> NaiveLlama:
    return NaiveLlama(plain_model)


def check(runtime: Runtime, context: Prefilled, naive: NaiveLlama, cells: Sequence[Kept]) -> None:
    cache = BatchCache(context, cells, room=ROOM, rotation=runtime.rotation)
    forced = force(runtime.model, cache, [PROMPT], most_tokens=MANY)
    for cell, logprob, greedy in zip(cells, forced.logprob, forced.greedy, strict=True):
        compact = cell.positions is Positions.COMPACT
        expected = naive.logprobs(CONTEXT, PROMPT, cell.mask, compact=compact)
        due = expected.gather(1, torch.tensor(PROMPT.answer)[:, None])[:, 0]
        torch.testing.assert_close(logprob[0], due, rtol=1e-4, atol=1e-3)
        assert torch.equal(greedy[0], expected.argmax(dim=-1))


def test_the_naive_model_is_the_one_of_transformers(
    plain_model: PreTrainedModel, naive: NaiveLlama
) -> None:
    ids = torch.tensor([[*CONTEXT, *PROMPT.tokens]])
    with torch.inference_mode():
        logits = plain_model(ids, use_cache=False).logits[0]
    expected = logits[-len(PROMPT.answer) :].log_softmax(dim=-1)
    got = naive.logprobs(CONTEXT, PROMPT, ALL)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_an_evicted_cache_reads_like_a_masked_model(
    seed: int, runtime: Runtime, context: Prefilled, naive: NaiveLlama
) -> None:
    check(runtime, context, naive, [Kept(mask=ragged(seed))])


def test_cells_of_all_kinds_in_one_batch_read_like_masked_models(
    runtime: Runtime, context: Prefilled, naive: NaiveLlama
) -> None:
    cells = [
        Kept(mask=ragged(7)),
        Kept(mask=uniform(0, 5)),
        Kept(mask=uniform(1, 5)),
        Kept(mask=uniform(2, 5), positions=Positions.COMPACT),
        Kept(mask=ALL),
        Kept(mask=uniform(3, 12), positions=Positions.COMPACT),
        Kept(mask=torch.zeros_like(ALL)),
    ]
    check(runtime, context, naive, cells)


@pytest.mark.parametrize("kept", [0, 1, 6, TOKENS])
def test_compact_cells_read_like_rotated_anew(
    kept: int, runtime: Runtime, context: Prefilled, naive: NaiveLlama
) -> None:
    check(runtime, context, naive, [Kept(mask=uniform(4, kept), positions=Positions.COMPACT)])


def test_compact_differs_from_original_unless_all_is_kept(
    runtime: Runtime, context: Prefilled
) -> None:
    for mask, equal in ((ALL, True), (uniform(5, 10), False)):
        cells = [Kept(mask=mask, positions=positions) for positions in Positions]
        cache = BatchCache(context, cells, room=ROOM, rotation=runtime.rotation)
        one, two = force(runtime.model, cache, [PROMPT], most_tokens=MANY).logprob
        assert torch.allclose(one[0], two[0], atol=1e-4) == equal


@pytest.mark.parametrize("seed", range(3))
def test_what_prompts_pay_to_the_context_is_the_largest_attention(
    seed: int, runtime: Runtime, context: Prefilled, naive: NaiveLlama
) -> None:
    prompts = [
        Prompt(lead=tuple(draw_ids(3, 10 * seed + i)), answer=tuple(draw_ids(2, 10 * seed + i + 5)))
        for i in range(3)
    ]
    cache = BatchCache(context, [Kept(mask=ALL)], room=ROOM)
    cache.observing = True
    force(runtime.model, cache, prompts, most_tokens=MANY)
    best = torch.zeros(LAYERS, HEADS, TOKENS)
    for prompt in prompts:
        naive.logprobs(CONTEXT, prompt, ALL)
        best = torch.maximum(best, torch.stack(naive.received))
    got = torch.stack([cache.received[layer] for layer in sorted(cache.received)])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, best, rtol=1e-3, atol=1e-5)


def test_nothing_is_noted_unless_asked_for(runtime: Runtime, context: Prefilled) -> None:
    cache = BatchCache(context, [Kept(mask=ALL)], room=ROOM)
    force(runtime.model, cache, [PROMPT], most_tokens=MANY)
    assert not cache.received


def test_bytes_are_those_of_the_kept_entries_and_nothing_is_padded(
    runtime: Runtime, context: Prefilled
) -> None:
    masks = [ragged(0), ragged(1), uniform(0, 5), uniform(1, 5), torch.zeros_like(ALL), ALL]
    cells = [Kept(mask=mask) for mask in masks]
    cells.append(Kept(mask=uniform(2, 5), positions=Positions.COMPACT))
    cache = BatchCache(context, cells, room=ROOM, rotation=runtime.rotation)
    entry = 2 * SIZE * 4
    assert cache.cell_bytes() == [int(cell.mask.sum()) * entry for cell in cells]
    stored = 0
    for index, segments in cache._layers.items():
        rows = [row for s in segments for row in range(s.rows.start, s.rows.stop)]
        assert rows == list(range(len(cells) * KV_HEADS))
        counts = torch.cat([cell.mask[index] for cell in cells]).sum(dim=-1).tolist()
        for segment in segments:
            height = segment.rows.stop - segment.rows.start
            assert segment.keys.shape == segment.values.shape
            assert segment.keys.shape == (height, segment.kept + ROOM, SIZE)
            assert counts[segment.rows] == [segment.kept] * height
            stored += height * segment.kept * entry
    assert stored == sum(cache.cell_bytes())


def held(cache: BatchCache) -> int:
    """Bytes of every storage that a cache can reach, each once, room for new tokens included."""
    storages = {}
    waiting: list[object] = [cache._layers]
    while waiting:
        each = waiting.pop()
        if isinstance(each, torch.Tensor):
            storage = each.untyped_storage()
            storages[storage.data_ptr(), storage.nbytes()] = storage.nbytes()
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, Segment):
            waiting += [getattr(each, field.name) for field in fields(each)]
    return sum(storages.values())


@pytest.mark.parametrize("seed", range(3))
def test_head_wise_budgets_hold_no_more_than_uniform_ones(seed: int, context: Prefilled) -> None:
    kept, room = 10, 4
    counts = torch.tensor([[1, 19], [18, 2]])[torch.randperm(2), :]
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.rand(LAYERS, KV_HEADS, TOKENS, generator=generator).argsort(-1).argsort(-1)
    uneven, even = (
        BatchCache(context, [Kept(mask=mask)], room=room)
        for mask in (ranks < counts[..., None], uniform(seed, kept))
    )
    entry = 2 * SIZE * 4
    # Padded to the longest head, the uneven one would hold nearly twice as much.
    assert held(uneven) == held(even) == LAYERS * KV_HEADS * (kept + room) * entry
    assert uneven.cell_bytes() == even.cell_bytes() == [LAYERS * KV_HEADS * kept * entry]


def test_padding_would_be_measured(context: Prefilled) -> None:
    cache = BatchCache(context, [Kept(mask=uniform(0, 5))], room=4)
    before = cache.cell_bytes()[0]
    (segment,) = cache._layers[0]
    segment.keys = torch.cat((segment.keys, torch.zeros(KV_HEADS, 7, SIZE)), dim=1)
    assert cache.cell_bytes()[0] - before == KV_HEADS * 7 * SIZE * 4


def test_kept_keys_are_the_prefilled_ones_in_order(context: Prefilled) -> None:
    cells = [Kept(mask=ragged(3)), Kept(mask=ragged(4))]
    cache = BatchCache(context, cells, room=ROOM)
    for index, (layer, segments) in enumerate(cache._layers.items()):
        whole = context.layers[layer]
        for segment in segments:
            for row in range(segment.rows.start, segment.rows.stop):
                cell, head = divmod(row, KV_HEADS)
                mask = cells[cell].mask[index, head]
                place = row - segment.rows.start
                kept = segment.keys[place, : segment.kept], segment.values[place, : segment.kept]
                assert torch.equal(kept[0], whole.keys[head, mask])
                assert torch.equal(kept[1], whole.values[head, mask])


def test_a_cache_is_a_copy(runtime: Runtime, context: Prefilled) -> None:
    before = [layer.keys.clone() for layer in context.layers.values()]
    cache = BatchCache(context, [Kept(mask=ALL)], room=ROOM, rotation=runtime.rotation)
    for segments in cache._layers.values():
        for segment in segments:
            segment.keys.zero_()
            segment.values.zero_()
    after = [layer.keys for layer in context.layers.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@given(kept=st.integers(0, TOKENS), seed=st.integers(0, 99))
def test_the_next_position_follows_the_policy(kept: int, seed: int) -> None:
    mask = uniform(seed, kept)
    assert Kept(mask=mask).next_position() == TOKENS
    assert Kept(mask=mask, positions=Positions.COMPACT).next_position() == kept
    assert Kept(mask=mask).total == kept * LAYERS * KV_HEADS


@given(
    start=st.integers(0, 6), height=st.integers(1, 6), first=st.integers(0, 8), many=st.integers(1)
)
def test_a_part_of_a_segment_is_what_lies_in_the_rows(
    start: int, height: int, first: int, many: int
) -> None:
    last = min(first + many, 14)
    rows = list(range(start, start + height))
    keys = torch.tensor(rows).float()[:, None, None].expand(-1, 3, 2).clone()
    segment = Segment(
        rows=slice(start, start + height), kept=2, keys=keys, values=keys.clone(), first_position=0
    )
    part, place = segment.part(first, last)
    wanted = [row for row in range(first, last) if row in rows]
    if not wanted:
        assert part is None
        return
    assert part is not None
    assert list(range(first, last))[place] == wanted
    assert part.keys[:, 0, 0].tolist() == part.values[:, 0, 0].tolist() == wanted
    assert list(range(part.rows.start, part.rows.stop)) == wanted
    # New tokens are written through it.
    part.keys[0] = -1.0
    assert segment.keys[wanted[0] - start, 0, 0] == -1.0


GEMMA: dict[str, Any] = {
    "vocab_size": 1502,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "query_pre_attn_scalar": 8,
}


def additive(shown: Tensor) -> Tensor:
    return torch.zeros(shown.shape).masked_fill(~shown, torch.finfo(torch.float32).min)


def test_sliding_layers_stay_whole_beside_evicted_ones(make_pair: MakePair) -> None:
    from transformers import Gemma3TextConfig

    config = Gemma3TextConfig(**GEMMA)
    plain, runtime = make_pair(config)
    plain.set_attn_implementation("eager")
    context, _ = prefill(runtime, CONTEXT)
    masks = [
        torch.rand(1, 2, TOKENS, generator=torch.Generator().manual_seed(i)) < 0.4 for i in (0, 1)
    ]
    masks.append(torch.ones(1, 2, TOKENS, dtype=torch.bool))
    cache = BatchCache(context, [Kept(mask=mask) for mask in masks], room=ROOM)
    forced = force(runtime.model, cache, [PROMPT], most_tokens=MANY)
    ids = torch.tensor([[*CONTEXT, *PROMPT.tokens]])
    total = ids.shape[1]
    for mask, logprob in zip(masks, forced.logprob, strict=True):
        causal = torch.ones(1, HEADS, total, total, dtype=torch.bool).tril()
        far = torch.ones(total, total, dtype=torch.bool).tril(-GEMMA["sliding_window"])
        full = causal.clone()
        for head, question, j in product(range(HEADS), range(TOKENS, total), range(TOKENS)):
            full[0, head, question, j] &= mask[0, head // 2, j]
        with torch.inference_mode():
            logits = plain(
                ids,
                attention_mask={
                    "full_attention": additive(full),
                    "sliding_attention": additive(causal & ~far),
                },
                use_cache=False,
            ).logits[0]
        rows = logits[-len(PROMPT.answer) :].log_softmax(dim=-1)
        expected = rows.gather(1, torch.tensor(PROMPT.answer)[:, None])[:, 0]
        torch.testing.assert_close(logprob[0], expected, rtol=1e-4, atol=1e-3)
    # Sliding layers are kept by every policy and count for none.
    assert cache.cell_bytes() == [int(mask.sum()) * 2 * 8 * 4 for mask in masks]
