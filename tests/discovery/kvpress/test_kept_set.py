from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.discovery.kvpress.kept_set import masked_out, returned
from kvharness.errors import UsageProblem

DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@given(seed=st.integers(0, 999), heads=st.integers(1, 3), tokens=st.integers(1, 40), dtype=DTYPES)
def test_entries_are_found_in_any_order(
    seed: int, heads: int, tokens: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, heads, tokens, 8, generator=generator).to(dtype)
    kept = 1 + seed % tokens
    index = torch.stack([torch.randperm(tokens, generator=generator)[:kept] for _ in range(heads)])
    head = torch.arange(heads)[:, None]
    mask = returned((keys, values), (keys[head, index], values[head, index]))
    assert [row.nonzero().flatten().tolist() for row in mask] == index.sort().values.tolist()


def test_equal_tokens_count_from_the_earliest() -> None:
    keys = torch.tensor([[[1.0], [2.0], [1.0], [1.0], [3.0]]])
    back = keys[:, [3, 4, 2]]
    assert returned((keys, keys), (back, back)).tolist() == [[True, False, True, False, True]]


def test_values_tell_apart_what_keys_do_not() -> None:
    keys, values = torch.ones(1, 4, 2), torch.arange(8.0).view(1, 4, 2)
    mask = returned((keys, values), (keys[:, :2], values[:, [3, 1]]))
    assert mask.tolist() == [[False, True, False, True]]


@pytest.mark.parametrize("place", [0, 2])
def test_what_was_not_there_before_is_no_kept_entry(place: int) -> None:
    keys = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    back = keys[:, [4, 0, 2]].clone()
    back[0, place, 1] += 1e-3
    with pytest.raises(UsageProblem, match="changes the keys or values"):
        returned((keys, keys), (back, back))


def test_an_entry_cannot_come_back_twice() -> None:
    keys = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    back = keys[:, [4, 4]]
    with pytest.raises(UsageProblem, match="changes the keys or values"):
        returned((keys, keys), (back, back))


def test_masked_entries_are_what_is_missing() -> None:
    masked = (torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([2, 0]))
    assert masked_out(masked, (2, 3)).tolist() == [[True, True, False], [False, True, True]]
