"""A model loaded and observed on a device, ready for the engine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from kvharness.errors import ModelProblem, UsageProblem
from kvharness.model.attention import KERNEL, observe
from kvharness.model.keys import read_at
from kvharness.model.rotary import Rotation
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvharness.pretrained.find import ModelSource

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: The model is asked whether its keys move as they should: so many tokens, so far.
_SHIFT = 37
_NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "avx_ne_convert", " bf16")


@dataclass(frozen=True)
class Runtime:
    """An observed model with its encoder. Compressed layers are those without a sliding window."""

    source: ModelSource
    model: PreTrainedModel
    encoder: Encoder
    device: torch.device
    dtype: str

    @classmethod
    def load(
        cls,
        source: ModelSource,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
    ) -> Runtime:
        """Load weights and take over attention.

        ``threads`` sets torch's for the whole process when computing on a CPU: how sums are
        split over threads changes their last bits.

        Raises:
            ModelProblem: the weights cannot be loaded or the architecture cannot be observed.
            UsageProblem: the device or dtype is not available.
        """
        place = resolve_device(device)
        kind = resolve_dtype(dtype, place)
        if threads is not None and place.type == "cpu":
            torch.set_num_threads(threads)
        model = _load_weights(source, DTYPES[kind], place)
        observe(model)
        return cls(source, model, Encoder(source.tokenizer()), place, kind)

    @cached_property
    def stop(self) -> frozenset[int]:
        """Tokens that end a reply."""
        config, generation = self.model.config, self.model.generation_config
        given: list[Any] = [
            config.get_text_config().eos_token_id,
            self.encoder.tokenizer.eos_token_id,
        ]
        given.append(getattr(generation, "eos_token_id", None))
        flat = [token for part in given for token in (part if isinstance(part, list) else [part])]
        return frozenset(token for token in flat if token is not None)

    @cached_property
    def rotation(self) -> Rotation:
        """For policies with compact positions.

        Raises:
            ModelProblem: this model's keys cannot be moved; checked on the model itself.
        """
        rotation = Rotation(self.model)
        here, there = read_at(self.model, 0), read_at(self.model, _SHIFT)
        if here.sliding or not all(
            rotation.moves(here.layers[index].keys, there.layers[index].keys, by=_SHIFT)
            for index in here.layers
        ):
            raise ModelProblem(
                f"the keys of {self.source.name} do not move like rotary ones (sliding layers, or "
                f"another kind of positions); policies with compact positions cannot run on it"
            )
        return rotation

    def clock(self) -> float:
        """Wall seconds, after the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def memory(self) -> int:
        """Bytes that decode batches may use for their caches: a quarter of the device's."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory // 4)
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def identity(
    source: ModelSource, encoder: Encoder, *, device: str, dtype: str, threads: int
) -> dict[str, str]:
    """The part of a record's key that belongs to the model and to how it computes."""
    return {
        "digest": source.digest,
        "dtype": dtype,
        "device": device,
        "kernel": KERNEL,
        "threads": str(threads) if device == "cpu" else "",
        "template": encoder.template.digest,
    }


def resolve_device(text: str) -> torch.device:
    """``auto`` is the first visible GPU, else the CPU.

    Raises:
        UsageProblem: no such device here.
    """
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        raise UsageProblem(f"--kv-device {text!r}: expected auto, cpu, cuda or cuda:N") from None
    if device.type not in {"cpu", "cuda"}:
        raise UsageProblem(f"--kv-device {text!r}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageProblem(f"--kv-device {text!r}: torch sees {count} CUDA devices on this machine")
    return device


def resolve_dtype(text: str, device: torch.device) -> str:
    """``auto`` is bfloat16 on GPUs and on CPUs that compute in it, else float32."""
    if text == "auto":
        return "bfloat16" if device.type == "cuda" or _cpu_has_bf16() else "float32"
    return text


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in flags for flag in _NATIVE_BF16)


def _load_weights(source: ModelSource, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        # Any: transformers types neither the pair nor `to` in a way that mypy can follow.
        loader: Any = AutoModelForCausalLM
        model, loading = loader.from_pretrained(
            str(source.path), dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelProblem(f"the model in {source.path} cannot be loaded: {reason}") from error
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
    if loading["missing_keys"]:
        # transformers would draw them at random, another model in every run.
        first = min(loading["missing_keys"])
        count = len(loading["missing_keys"])
        raise ModelProblem(
            f"the weights in {source.path} lack {count} tensors of the model, such as {first}"
        )
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def check_window(source: ModelSource, context: int, *, beside: int = 0) -> None:
    """Refuse a context that the model was not made for.

    ``beside`` is what the longest question and answer take, where that is known.

    Raises:
        UsageProblem: context, question and answer do not fit the model's window.
    """
    window = source.window()
    if window is not None and context + beside > window:
        more = f" and up to {beside} tokens of question and answer" if beside else ""
        less = f"--kv-context {window - beside} or less" if beside else "a shorter context"
        raise UsageProblem(
            f"--kv-context {context}{more}: {source.name} was made for at most {window} tokens, "
            f"question and answer included; nothing is truncated here, so choose {less}"
        )
