"""Tiny models and stores that every test may use."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import settings

from tests.prose import prose
from tests.runs import SETTINGS

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from kvharness.model.loaded import Runtime
    from kvharness.records.record import Record
    from tests.runs import Keep


class MakePair(Protocol):
    """Makes the same random weights twice: for transformers, and observed."""

    def __call__(self, config: Any) -> tuple[PreTrainedModel, Runtime]: ...


# Torch reads it when it is first imported, here and in processes that tests start. Threads that
# wait for each other spin: beside other processes they cost ten times the CPU time of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Two shared cores: wall-clock deadlines would fail at random; CI draws the same examples always.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template, trained on the package's essays."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from kvharness.items.filler import essays

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator((sentence for essay in essays() for sentence in essay), trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",  # noqa: S106 - no password
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return made


def tiny_config(**changes: Any) -> Any:
    """A two-layer Llama: 4 query heads, 2 KV heads, head size 16."""
    from transformers import LlamaConfig

    values: dict[str, Any] = {
        "vocab_size": 1502,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "eos_token_id": 1,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "initializer_range": 0.3,
    }
    return LlamaConfig(**{**values, **changes})


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A directory that --kv-model accepts: random weights, so no answer is ever right."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config(), dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def runtime(tiny_model: Path) -> Runtime:
    """The tiny model, observed."""
    from kvharness.model.loaded import Runtime
    from kvharness.pretrained.find import find_model

    return Runtime.load(find_model(str(tiny_model)), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def plain_model(tiny_model: Path) -> PreTrainedModel:
    """The tiny model as transformers runs it: what the harness is compared with."""
    import torch
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    return model


@pytest.fixture(scope="session")
def make_pair(tokenizer: Any) -> MakePair:
    """From a configuration, a model of random weights as transformers runs it and observed."""
    import copy
    from pathlib import Path

    import torch
    from transformers import AutoModelForCausalLM

    from kvharness.model.attention import observe
    from kvharness.model.loaded import Runtime
    from kvharness.pretrained.find import ModelSource
    from kvharness.pretrained.prompt import Encoder

    def make(config: Any) -> tuple[PreTrainedModel, Runtime]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        observed = copy.deepcopy(plain)
        observe(observed)
        source = ModelSource(name="made", path=Path("made"), digest="0")
        device = torch.device("cpu")
        return plain, Runtime(source, observed, Encoder(tokenizer), device, "float32")

    return make


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of about eight thousand words."""
    file = tmp_path_factory.mktemp("books") / "book.txt"
    file.write_text(prose(8000))
    return file


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    from kvharness.records.header import Header
    from kvharness.records.store import Writer

    def write(*records: Record, second: int = 0, **changes: Any) -> None:
        header = replace(
            Header.create({**SETTINGS, **changes}),
            created=f"2025-01-01T00:00:{second:02d}+00:00",
        )
        with Writer(tmp_path, header) as writer:
            for record in records:
                writer.append(record)

    return write
