from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kvharness.isolation.torch_settings import kept

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGES = {
    "the default dtype from torch.float32 to torch.float64": lambda: torch.set_default_dtype(
        torch.float64
    ),
    "the default device from cpu to meta": lambda: torch.set_default_device("meta"),
    "the gradient mode from True to False": lambda: torch.set_grad_enabled(False),
    "the deterministic mode from 0 to 1": lambda: torch.use_deterministic_algorithms(
        True, warn_only=True
    ),
}


@pytest.mark.parametrize("told", CHANGES)
def test_a_setting_is_named_and_put_back(told: str) -> None:
    with kept() as changed:
        CHANGES[told]()
    assert changed == [told]
    with kept() as changed:
        pass
    assert changed == []
    assert torch.zeros(1).dtype is torch.float32
    assert torch.zeros(1).device.type == "cpu"


def test_the_threads_are_put_back_also_where_something_is_raised() -> None:
    before = torch.get_num_threads()

    def fails() -> None:
        with kept() as changed:
            told.append(changed)
            torch.set_num_threads(before + 1)
            raise LookupError

    told: list[list[str]] = []
    with pytest.raises(LookupError):
        fails()
    assert told == [[f"the number of threads from {before} to {before + 1}"]]
    assert torch.get_num_threads() == before


def seeds() -> None:
    torch.manual_seed(3)


def draws() -> None:
    torch.rand(5)


@pytest.mark.parametrize("move", [seeds, draws])
def test_the_global_generator_is_put_back_and_not_named(move: Callable[[], None]) -> None:
    before = torch.get_rng_state()
    with kept() as changed:
        move()
    assert changed == []
    assert torch.equal(torch.get_rng_state(), before)
