"""What golden records are taken on: a model, a tokenizer and items that no library draws.

Weights are 53-bit integers of PCG64 scaled to an interval, so they are the same on every processor
and under every version of torch, numpy and transformers. The tokenizer has the 256 bytes and no
merges, so nothing is trained.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from kvharness.items.item import Item, Question
from kvharness.model.attention import observe
from kvharness.model.loaded import Runtime
from kvharness.pretrained.find import ModelSource
from kvharness.pretrained.prompt import Encoder
from tests.conftest import tiny_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Bytes, and two tokens of the chat template.
_SPECIAL = ("<|im_start|>", "<|im_end|>")
VOCABULARY = 256 + len(_SPECIAL)
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: Standard deviation of the weights.
_SPREAD = 0.3
_SHAKE = 1e-5
#: Layers 0 and 2 slide over a window of so many tokens and keep their whole cache.
_WINDOW = 24
_HYBRID: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "sliding_window": _WINDOW,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "query_pre_attn_scalar": 20,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
}
_TEXT = (
    'The harbour of Lindow froze in the winter of 1741. Its keeper, a Mr. Hale, wrote: "No boat '
    'has come for nine weeks."\nSalt was traded for wool; the price of both doubled! '
    "By March the ice broke. What came first, a brig or the mail? Nobody could say.\n"
)


def draws(name: str, count: int) -> Any:
    """Numbers from 0 up to 1 that the name fixes."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    raw = np.random.PCG64(seed).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*_SPECIAL, *letters))}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.add_special_tokens([*_SPECIAL])
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=_SPECIAL[1],
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = _TEMPLATE
    return made


def runtimes(shake: int = 0) -> dict[str, Runtime]:
    """Of a model with global attention, and of one whose other layers slide over a window.

    ``shake`` moves every weight by up to 1e-5 of itself, another way for each number but 0: scores
    then move by more than rounding moves them.
    """
    configs = {
        "global": tiny_config(vocab_size=VOCABULARY),
        "hybrid": AutoConfig.for_model("gemma3_text", **_HYBRID),
    }
    encoder = Encoder(tokenizer())
    return {name: _runtime(name, config, encoder, shake) for name, config in configs.items()}


def _runtime(name: str, config: Any, encoder: Encoder, shake: int) -> Runtime:
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    _fill(model, shake)
    observe(model)
    source = ModelSource(name=f"golden-{name}", path=Path("golden"), digest=name)
    return Runtime(source, model, encoder, torch.device("cpu"), "float32")


def _fill(model: PreTrainedModel, shake: int) -> None:
    for name, weights in model.named_parameters():
        if weights.dim() > 1:
            drawn = (draws(name, weights.numel()) * 2 - 1) * _SPREAD * math.sqrt(3)
            moved = draws(f"{name} {shake}", weights.numel()) * 2 - 1 if shake else 0.0
            drawn *= 1 + _SHAKE * moved
            weights.data = torch.from_numpy(drawn).float().view(weights.shape)


def fixed_item(encoder: Encoder) -> Item:
    """Text that no generator makes, with two questions."""
    context = (*encoder.head, *encoder.ids(_TEXT))
    return Item(
        suite="qa",
        name="fixed-s0-00",
        variant="facts",
        seed=0,
        context=context,
        text=_TEXT,
        questions=(
            _question(encoder, "When did it freeze?", "1741", evidence=((40, 60),)),
            _question(encoder, "Who kept it?", "Hale", evidence=((60, 80), (90, 99))),
        ),
    )


def _question(
    encoder: Encoder, text: str, answer: str, *, evidence: tuple[tuple[int, int], ...]
) -> Question:
    ids = encoder.ids(f" {answer}")
    return Question(
        text=text,
        question=encoder.question(text),
        tail=encoder.tail("It is"),
        answer=ids,
        slots=((0, 2), (2, len(ids))),
        reference=answer,
        references=(answer,),
        evidence=evidence,
        max_new_tokens=4,
    )
