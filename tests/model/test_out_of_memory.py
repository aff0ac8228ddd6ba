from __future__ import annotations

import pytest
import torch

from kvharness.errors import ModelProblem
from kvharness.model.out_of_memory import explained, is_lack, too_large

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


def cpu_lack() -> RuntimeError:
    """As this torch raises it: an exabyte is nowhere to be had."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (cpu_lack(), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_lack_is_told_from_other_errors(error: Exception, lack: bool) -> None:  # noqa: FBT001
    assert is_lack(error) is lack


def test_it_says_what_to_change() -> None:
    assert str(too_large(GPU, "reading 9 tokens")) == (
        "cuda:1 ran out of memory reading 9 tokens; lower --kv-context or choose a smaller "
        "--kv-model"
    )
    assert "; lower --kv-context, run fewer workers (-n) or choose" in str(too_large(CPU, "here"))


def test_only_a_lack_is_explained() -> None:
    with pytest.raises(ModelProblem, match="cpu ran out of memory here; "), explained(CPU, "here"):
        raise cpu_lack()
    with pytest.raises(RuntimeError, match=r"^mat1$"), explained(CPU, "here"):
        raise RuntimeError("mat1")
