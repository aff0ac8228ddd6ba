"""Tiny Llamas of random weights, and reading them as masked instead of evicted."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kvharness.engine.decode import force
from kvharness.model.attention import observe, reading
from kvharness.model.context_reading import prefill
from kvharness.model.evicted_cache import BatchCache, Kept
from kvharness.model.loaded import Runtime
from kvharness.policy.observation.reading import Ahead
from kvharness.policy.trace import Trace
from kvharness.policy.view import Positions
from kvharness.pretrained.find import ModelSource
from kvharness.testing.letters import LETTERS, VOCABULARY
from kvharness.testing.tensors import Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.engine.decode import Prompt
    from kvharness.model.prefilled import Prefilled
    from kvharness.model.watch import Guard
    from kvharness.policy.observation.base import Observations
    from kvharness.policy.observation.reading import AttentionCall
    from kvharness.policy.trace import LayerTrace

#: Layers, query heads, KV heads and head size of the model that policies get ready for.
MODEL_SHAPE = Shape(layers=2, heads=4, kv_heads=2, tokens=1, size=16)
_THETA = 10_000.0
#: More than any prompt here, so that a batch is one forward pass.
_MANY = 100_000


@dataclass(frozen=True)
class TinyModel:
    """The same weights twice: as transformers runs them, and observed by the harness."""

    plain: PreTrainedModel
    runtime: Runtime

    @staticmethod
    def of(shape: Shape) -> TinyModel:
        """The model with a shape's layers, heads and head size; the same at every call."""
        return _made(shape.layers, shape.heads, shape.kv_heads, shape.size)

    def prefill(
        self,
        context: Sequence[int],
        needs: Observations,
        prompts: Sequence[Prompt],
        *,
        guard: Guard = nullcontext,
    ) -> tuple[Prefilled, Trace]:
        """The context's full cache, and a trace that knows the prompts if ``needs`` ask.

        ``guard`` is entered around the code of an observation.

        Raises:
            ModelProblem: an observation failed.
        """
        ahead = partial(self._ahead, prompts)
        prefilled, _ = prefill(self.runtime, context, needs, ahead=ahead, guard=guard)
        prefilled.observing_seconds(needs)
        trace = Trace(
            # Copies: that a policy leaves its inputs alone is another check's subject.
            layers=tuple(copy.deepcopy(layer) for layer in prefilled.layers.values()),
            positions=torch.arange(prefilled.tokens),
            rng_words=("0", "item", "policy"),
        )
        return prefilled, trace

    def _ahead(self, prompts: Sequence[Prompt], prefilled: Prefilled) -> Ahead:
        cache = self.cache(prefilled, [Kept(mask=prefilled.all_kept())], prompts)
        cache.observing = True
        force(self.runtime.model, cache, prompts, most_tokens=_MANY)
        asked = tuple(prompt.tokens for prompt in prompts)
        return Ahead(prompts=asked, attention=cache.received)

    def cache(
        self, prefilled: Prefilled, cells: Sequence[Kept], prompts: Sequence[Prompt]
    ) -> BatchCache:
        """The evicted caches of cells with room for the prompts."""
        room = sum(len(prompt.tokens) for prompt in prompts)
        moved = any(cell.positions is Positions.COMPACT for cell in cells)
        rotation = self.runtime.rotation if moved else None
        return BatchCache(prefilled, cells, room=room, rotation=rotation)

    def evicted(
        self, prefilled: Prefilled, cells: Sequence[Kept], prompts: Sequence[Prompt]
    ) -> list[Tensor]:
        """Log-probabilities of all answers after evicting, float32 ``[tokens]`` for each cell."""
        cache = self.cache(prefilled, cells, prompts)
        forced = force(self.runtime.model, cache, prompts, most_tokens=_MANY)
        return [torch.cat(rows) for rows in forced.logprob]

    def masked(self, prefilled: Prefilled, kept: Kept, prompts: Sequence[Prompt]) -> Tensor:
        """The same from the full cache under a mask, one prompt after the other."""
        return torch.cat([self._masked(prefilled, kept, prompt) for prompt in prompts])

    def _masked(self, prefilled: Prefilled, kept: Kept, prompt: Prompt) -> Tensor:
        first = kept.next_position()
        reader = MaskedReader(prefilled, kept)
        with torch.no_grad(), reading(reader):
            output = self.runtime.model(
                input_ids=torch.tensor([prompt.tokens]),
                position_ids=torch.arange(first, first + len(prompt.tokens))[None],
                use_cache=False,
            )
        return _answered(output.logits[0], prompt)

    def in_full(self, context: Sequence[int], prompts: Sequence[Prompt]) -> Tensor:
        """The same as transformers computes it, with no cache and no policy."""
        rows = []
        for prompt in prompts:
            ids = torch.tensor([[*context, *prompt.tokens]])
            with torch.no_grad():
                rows.append(_answered(self.plain(ids, use_cache=False).logits[0], prompt))
        return torch.cat(rows)


def _answered(logits: Tensor, prompt: Prompt) -> Tensor:
    rows = logits[-len(prompt.answer) :].log_softmax(dim=-1)
    return rows.gather(1, torch.tensor(prompt.answer)[:, None])[:, 0]


@lru_cache
def _made(layers: int, heads: int, kv_heads: int, size: int) -> TinyModel:
    from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: PLC0415 - slow to import

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=size,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    observed = copy.deepcopy(plain)
    observe(observed)
    source = ModelSource(name="tiny-llama", path=Path("tiny-llama"), digest="0")
    return TinyModel(plain, Runtime(source, observed, LETTERS, torch.device("cpu"), "float32"))


class MaskedReader:
    """Attends to the full cache under a keep mask: what eviction must be equal to.

    Written without the cache's code, in float64, one sequence at a time; compact positions
    rotate by complex numbers.
    """

    def __init__(self, prefilled: Prefilled, kept: Kept) -> None:
        self._layers = [prefilled.layers[index] for index in sorted(prefilled.layers)]
        self._kept = kept

    def attend(self, call: AttentionCall) -> Tensor:
        context, mask = self._layers[call.layer], self._kept.mask[call.layer]
        keys = torch.cat((self._placed(context, mask), call.key[0].double()), dim=1)
        values = torch.cat((context.values.double(), call.value[0].double()), dim=1)
        new = call.query.shape[2]
        causal = torch.ones(len(mask), new, new, dtype=torch.bool).tril()
        seen = torch.cat((mask[:, None].expand(-1, new, -1), causal), dim=-1)
        group = call.query.shape[1] // len(mask)
        keys, values, seen = (each.repeat_interleave(group, dim=0) for each in (keys, values, seen))
        logits = call.query[0].double() @ keys.transpose(1, 2) * call.scaling
        weights = logits.masked_fill(~seen, float("-inf")).softmax(dim=-1)
        return (weights @ values)[None].to(call.query.dtype)

    def _placed(self, context: LayerTrace, mask: Tensor) -> Tensor:
        keys = context.keys.double()
        if self._kept.positions is Positions.ORIGINAL:
            return keys
        moved = mask.cumsum(dim=-1) - 1 - torch.arange(mask.shape[-1])
        half = keys.shape[-1] // 2
        angles = moved[..., None] * _THETA ** (-torch.arange(half).double() / half)
        turned = torch.complex(keys[..., :half], keys[..., half:]) * torch.polar(
            torch.ones_like(angles), angles
        )
        return torch.cat((turned.real, turned.imag), dim=-1)
